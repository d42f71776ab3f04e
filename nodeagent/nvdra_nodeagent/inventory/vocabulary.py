"""The words that NVML's numbers stand for, as attributes of published devices spell them."""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "Unknown"

# nvmlDeviceArchitecture_t
ARCHITECTURES: Final = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
    0xFFFFFFFF: UNKNOWN,
}

# nvmlBrandType_t
BRANDS: Final = {
    0: UNKNOWN,
    1: "Quadro",
    2: "Tesla",
    3: "NVS",
    4: "Grid",
    5: "GeForce",
    6: "Titan",
    7: "NvidiaVApps",
    8: "NvidiaVPC",
    9: "NvidiaVCS",
    10: "NvidiaVWS",
    11: "NvidiaCloudGaming",
    12: "QuadroRTX",
    13: "NvidiaRTX",
    14: "Nvidia",
    15: "GeForceRTX",
    16: "TitanRTX",
}

# nvmlDeviceAddressingModeType_t
ADDRESSING_MODES: Final = {0: "None", 1: "HMM", 2: "ATS"}

# Display adapters of DGX stations: NVML lists them, nobody computes on them.
DISPLAY_ADAPTERS: Final = frozenset({"DGX Display", "NVIDIA DGX Display"})
