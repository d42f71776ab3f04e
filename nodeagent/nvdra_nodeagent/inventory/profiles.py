"""How MIG profiles and devices are called: `1g.10gb+me`, `gpu-0-mig-1g10gb-me-20-3`.

NVML answers in numbers; the labels are those that `nvidia-smi mig -lgip` prints and users write.
"""

from __future__ import annotations

import re
from typing import Final

# Suffix by GPU instance profile index (nvmlGpuInstanceProfile): media engines, graphics.
_SUFFIXES: Final = {
    7: "+me",
    8: "+me",
    10: "+gfx",
    11: "+gfx",
    12: "+gfx",
    13: "-me",
    14: "-me",
    15: "+me.all",
    16: "+me.all",
    17: "+gfx",
}
GI_PROFILE_COUNT: Final = 18
"""NVML_GPU_INSTANCE_PROFILE_COUNT: indices beyond it have no label here."""

# Memory labels are in eighths of the GPU, the granularity of memory slices.
_EIGHTHS: Final = 8
_GIB: Final = 1024**3
_MIB: Final = 1024**2


def profile_label(
    index: int, *, gi_slices: int, memory_mb: int, gpu_memory_bytes: int, ci_slices: int = 0
) -> str:
    """The label of GPU instance profile `index` on a GPU with that much memory.

    `ci_slices` is the compute instance's share where it is not the whole GPU instance.
    """
    compute = f"{ci_slices}c." if ci_slices and ci_slices != gi_slices else ""
    memory = memory_label_gb(memory_mb, gpu_memory_bytes=gpu_memory_bytes)
    return f"{compute}{gi_slices}g.{memory}gb{_SUFFIXES.get(index, '')}"


def memory_label_gb(memory_mb: int, *, gpu_memory_bytes: int) -> int:
    """The gigabytes of the label: eighths of the GPU rounded up, times its size in whole GiB."""
    eighths = -(-_EIGHTHS * memory_mb * _MIB // gpu_memory_bytes)
    gpu_gib = -(-gpu_memory_bytes // _GIB)
    # Halves go up: 22.5 is 23.
    return (eighths * gpu_gib + _EIGHTHS // 2) // _EIGHTHS


def mig_device_name(gpu_minor: int, *, profile: str, gi_profile_id: int, start: int) -> str:
    """The name in the ResourceSlice; the numbers keep names unique where labels lose signs."""
    return f"gpu-{gpu_minor}-mig-{_as_dns(profile)}-{gi_profile_id}-{start}"


def _as_dns(profile: str) -> str:
    return re.sub(r"[^a-z0-9-]", "-", profile.replace(".", "").lower()).strip("-")
