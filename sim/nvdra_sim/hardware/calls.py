"""The calls of the ports by name, for faults: which exist, and what NVML calls them."""

from __future__ import annotations

from typing import Final

from nvdra_nodeagent.hardware.errors import (
    GpuLost,
    NotFound,
    NotSupported,
    NvmlError,
    SessionLost,
)

NODE_CALLS: Final = {
    "init": "nvmlInitWithFlags",
    "shutdown": "nvmlShutdown",
    "driver_version": "nvmlSystemGetDriverVersion",
    "cuda_driver_version": "nvmlSystemGetCudaDriverVersion",
    "device_count": "nvmlDeviceGetCount",
}
GPU_CALLS: Final = {
    "device": "nvmlDeviceGetHandleByIndex",
    "device_by_uuid": "nvmlDeviceGetHandleByUUID",
    "uuid": "nvmlDeviceGetUUID",
    "minor_number": "nvmlDeviceGetMinorNumber",
    "name": "nvmlDeviceGetName",
    "memory_bytes": "nvmlDeviceGetMemoryInfo",
    "architecture": "nvmlDeviceGetArchitecture",
    "brand": "nvmlDeviceGetBrand",
    "compute_capability": "nvmlDeviceGetCudaComputeCapability",
    "pci_bus_id": "nvmlDeviceGetPciInfo",
    "addressing_mode": "nvmlDeviceGetAddressingMode",
    "mig_mode": "nvmlDeviceGetMigMode",
    "mig_devices": "nvmlDeviceGetMigDeviceHandleByIndex",
    "compute_mode": "nvmlDeviceGetComputeMode",
    "set_compute_mode": "nvmlDeviceSetComputeMode",
    "fabric_info": "nvmlDeviceGetGpuFabricInfoV",
    "gi_profile": "nvmlDeviceGetGpuInstanceProfileInfo",
    "gpu_instance": "nvmlDeviceGetGpuInstanceById",
    "compute_instance": "nvmlGpuInstanceGetComputeInstanceById",
}
PCI_CALLS: Final = frozenset({"numa_node", "root_complex", "drm_nodes"})
SMI_CALLS: Final = frozenset({"time_slice", "set_time_slice"})
KNOWN_CALLS: Final = frozenset({*NODE_CALLS, *GPU_CALLS, *PCI_CALLS, *SMI_CALLS})

UNINITIALIZED: Final = 1
INVALID_ARGUMENT: Final = 2
NOT_SUPPORTED: Final = 3
NOT_FOUND: Final = 6
FUNCTION_NOT_FOUND: Final = 13
DRIVER_NOT_LOADED: Final = 9
GPU_IS_LOST: Final = 15
LIB_RM_VERSION_MISMATCH: Final = 18
IN_USE: Final = 19
INSUFFICIENT_RESOURCES: Final = 23

# The library's own words (nvmlErrorString).
_REASONS: Final = {
    UNINITIALIZED: "Uninitialized",
    INVALID_ARGUMENT: "Invalid Argument",
    NOT_SUPPORTED: "Not Supported",
    4: "Insufficient Permissions",
    NOT_FOUND: "Not Found",
    DRIVER_NOT_LOADED: "Driver Not Loaded",
    10: "Timeout",
    FUNCTION_NOT_FOUND: "Function Not Found",
    GPU_IS_LOST: "GPU is lost",
    16: "GPU requires reset",
    17: "The operating system has blocked the request",
    LIB_RM_VERSION_MISMATCH: "RM has detected an NVML/RM version mismatch",
    IN_USE: "In use by another client",
    20: "Insufficient Memory",
    INSUFFICIENT_RESOURCES: "Insufficient Resources",
    999: "Unknown Error",
}
_CLASSES: Final[dict[int, type[NvmlError]]] = {
    NOT_SUPPORTED: NotSupported,
    FUNCTION_NOT_FOUND: NotSupported,
    NOT_FOUND: NotFound,
    28: NotFound,
    GPU_IS_LOST: GpuLost,
    UNINITIALIZED: SessionLost,
    DRIVER_NOT_LOADED: SessionLost,
    LIB_RM_VERSION_MISMATCH: SessionLost,
}


def nvml_error(call: str, code: int) -> NvmlError:
    """The error that the real adapter raises when `call` (a port's method) answers `code`."""
    function = NODE_CALLS.get(call) or GPU_CALLS.get(call) or call
    reason = _REASONS.get(code, "Unknown Error")
    return _CLASSES.get(code, NvmlError)(function, code=code, reason=reason)
