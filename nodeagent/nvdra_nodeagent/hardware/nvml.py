"""NVML through its Python binding: the only module that imports `pynvml`.

Every error of the library or of the binding leaves here as an `NvmlError` that names the call.
Calls cost about a microsecond and release the GIL; NVML itself is thread-safe.
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any, Final

import pynvml

from nvdra_nodeagent.hardware.errors import (
    GpuLost,
    LibraryUnusable,
    NotFound,
    NotSupported,
    NvmlError,
)
from nvdra_nodeagent.hardware.ports import (
    CiInstance,
    GiInstance,
    GiProfile,
    MigHandle,
    MigMode,
    Placement,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nvdra_nodeagent.hardware.ports import DriverRoot

LIBRARY: Final = "libnvidia-ml.so.1"

# Init succeeds while no GPU is bound to the NVIDIA driver (all may be on vfio-pci).
_INIT_FLAG_NO_GPUS: Final = 1

_CLASSES: Final[dict[int, type[NvmlError]]] = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: NotSupported,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: NotSupported,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH: NotSupported,
    pynvml.NVML_ERROR_DEPRECATED: NotSupported,
    pynvml.NVML_ERROR_NOT_FOUND: NotFound,
    pynvml.NVML_ERROR_GPU_NOT_FOUND: NotFound,
    pynvml.NVML_ERROR_GPU_IS_LOST: GpuLost,
}


def _ask(call: str, *arguments: Any) -> Any:
    """Call the binding's function of that name, errors translated."""
    function = getattr(pynvml, call, None)
    if function is None:
        code = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
        raise NotSupported(call, code=code, reason="the NVML binding does not know this function")
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        raise _CLASSES.get(error.value, NvmlError)(
            call, code=error.value, reason=str(error)
        ) from error
    except UnicodeDecodeError as error:
        code = pynvml.NVML_ERROR_UNKNOWN
        raise NvmlError(call, code=code, reason=f"answer is not text: {error.object!r}") from error


class LibraryNvml:
    """The NVML library of the driver below `root`.

    The binding keeps one library per process; opening another one replaces it.
    """

    def __init__(self, root: DriverRoot) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._initialised = False

    def init(self) -> None:
        with self._lock:
            if self._initialised:
                return
            _load(self._root.library(LIBRARY))
            _ask("nvmlInitWithFlags", _INIT_FLAG_NO_GPUS)
            self._initialised = True

    def shutdown(self) -> None:
        with self._lock:
            if self._initialised:
                self._initialised = False
                _ask("nvmlShutdown")

    def driver_version(self) -> str:
        return str(_ask("nvmlSystemGetDriverVersion"))

    def cuda_driver_version(self) -> int:
        return int(_ask("nvmlSystemGetCudaDriverVersion"))

    def device_count(self) -> int:
        return int(_ask("nvmlDeviceGetCount"))

    def device(self, index: int) -> LibraryNvmlDevice:
        return LibraryNvmlDevice(_ask("nvmlDeviceGetHandleByIndex", index))


def _load(path: Path) -> None:
    """Make the binding use this file; by itself it asks the dynamic linker for a bare name."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryUnusable(str(path), cause=str(error)) from error
    with pynvml.libLoadLock:
        if pynvml.nvmlLib is None or pynvml.nvmlLib._handle != library._handle:
            pynvml.nvmlLib = library
            pynvml._nvmlGetFunctionPointer_cache.clear()


class LibraryNvmlDevice:
    """One GPU, by its NVML handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def uuid(self) -> str:
        return str(_ask("nvmlDeviceGetUUID", self._handle))

    def minor_number(self) -> int:
        return int(_ask("nvmlDeviceGetMinorNumber", self._handle))

    def name(self) -> str:
        return str(_ask("nvmlDeviceGetName", self._handle))

    def memory_bytes(self) -> int:
        return int(_ask("nvmlDeviceGetMemoryInfo", self._handle).total)

    def architecture(self) -> int:
        return int(_ask("nvmlDeviceGetArchitecture", self._handle))

    def brand(self) -> int:
        return int(_ask("nvmlDeviceGetBrand", self._handle))

    def compute_capability(self) -> tuple[int, int]:
        major, minor = _ask("nvmlDeviceGetCudaComputeCapability", self._handle)
        return int(major), int(minor)

    def pci_bus_id(self) -> str:
        return str(_ask("nvmlDeviceGetPciInfo", self._handle).busId)

    def addressing_mode(self) -> int:
        return int(_ask("nvmlDeviceGetAddressingMode", self._handle))

    def mig_mode(self) -> MigMode:
        current, pending = _ask("nvmlDeviceGetMigMode", self._handle)
        on = pynvml.NVML_DEVICE_MIG_ENABLE
        return MigMode(current=current == on, pending=pending == on)

    def mig_devices(self) -> tuple[MigHandle, ...]:
        return tuple(
            MigHandle(
                uuid=str(_ask("nvmlDeviceGetUUID", handle)),
                gi_id=int(_ask("nvmlDeviceGetGpuInstanceId", handle)),
                ci_id=int(_ask("nvmlDeviceGetComputeInstanceId", handle)),
            )
            for handle in self._mig_handles()
        )

    def _mig_handles(self) -> Iterator[Any]:
        for index in range(_ask("nvmlDeviceGetMaxMigDeviceCount", self._handle)):
            try:
                yield _ask("nvmlDeviceGetMigDeviceHandleByIndex", self._handle, index)
            except NvmlError as error:
                # Indices are not dense: a destroyed device leaves a gap.
                if not isinstance(error, NotFound) and not _is_invalid_argument(error):
                    raise

    def gi_profile(self, index: int) -> GiProfile:
        call = "nvmlDeviceGetGpuInstanceProfileInfo"
        try:
            # Version 1 of the structure: drivers since MIG's first know it.
            found = _ask(call, self._handle, index, 1)
        except NvmlError as error:
            if _is_invalid_argument(error):
                raise NotSupported(call, code=error.code, reason=error.reason) from error
            raise
        return GiProfile(
            index=index,
            id=found.id,
            slice_count=found.sliceCount,
            instance_count=found.instanceCount,
            multiprocessors=found.multiprocessorCount,
            copy_engines=found.copyEngineCount,
            decoders=found.decoderCount,
            encoders=found.encoderCount,
            jpeg_engines=found.jpegCount,
            ofa_engines=found.ofaCount,
            memory_mb=found.memorySizeMB,
        )

    def gpu_instance(self, gi_id: int) -> GiInstance:
        found = _ask("nvmlGpuInstanceGetInfo", self._gpu_instance(gi_id))
        return GiInstance(
            id=found.id,
            profile_id=found.profileId,
            placement=Placement(start=found.placement.start, size=found.placement.size),
        )

    def compute_instance(self, gi_id: int, ci_id: int) -> CiInstance:
        gpu_instance = self._gpu_instance(gi_id)
        handle = _ask("nvmlGpuInstanceGetComputeInstanceById", gpu_instance, ci_id)
        found = _ask("nvmlComputeInstanceGetInfo_v2", handle)
        return CiInstance(
            id=found.id,
            gi_id=gi_id,
            profile_id=found.profileId,
            slice_count=_slice_count(gpu_instance, found.profileId),
        )

    def _gpu_instance(self, gi_id: int) -> Any:
        return _ask("nvmlDeviceGetGpuInstanceById", self._handle, gi_id)


def _slice_count(gpu_instance: Any, profile_id: int) -> int:
    """Slices of a compute instance profile, which NVML lists by index but records by id."""
    call = "nvmlGpuInstanceGetComputeInstanceProfileInfo"
    shared = pynvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
    for index in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            profile = _ask(call, gpu_instance, index, shared, 1)
        except NvmlError as error:
            if isinstance(error, NotSupported) or _is_invalid_argument(error):
                continue
            raise
        if profile.id == profile_id:
            return int(profile.sliceCount)
    raise NotFound(
        call,
        code=pynvml.NVML_ERROR_NOT_FOUND,
        reason=f"no compute instance profile has the id {profile_id}",
    )


def _is_invalid_argument(error: NvmlError) -> bool:
    return bool(error.code == pynvml.NVML_ERROR_INVALID_ARGUMENT)
