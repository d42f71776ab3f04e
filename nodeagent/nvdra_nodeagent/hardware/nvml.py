"""NVML through its Python binding, whose names only this module and `nvml_session` use.

Every error of the library or of the binding leaves here as an `NvmlError` that names the call.
Calls cost about a microsecond and release the GIL; NVML itself is thread-safe.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from typing import TYPE_CHECKING, Any, Final

import pynvml

from nvdra_nodeagent.hardware.errors import NotFound, NotSupported, NvmlError
from nvdra_nodeagent.hardware.nvml_session import LoadedLibrary, Session, ask, ended, load
from nvdra_nodeagent.hardware.ports import (
    CiInstance,
    FabricInfo,
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
_PATIENCE_S: Final = 5.0
# Drivers before R550 know only the first form of the question.
_UNKNOWN_VERSION: Final = (
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)


class LibraryNvml:
    """The NVML library of the driver below `root`.

    The binding keeps one library per process; opening another one replaces it.
    """

    def __init__(self, root: DriverRoot, *, patience_s: float = _PATIENCE_S) -> None:
        """`patience_s` is how long to wait for calls of others before a session may end."""
        self._root = root
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._library: LoadedLibrary | None = None

    def init(self) -> None:
        with self._held("nvmlInitWithFlags"):
            path = self._root.library(LIBRARY)
            if self._session and not self._session.is_lost and self._is_loaded(path):
                return
            self._end()
            self._library = load(path)
            ask("nvmlInitWithFlags", _INIT_FLAG_NO_GPUS)
            self._session = Session()

    def shutdown(self) -> None:
        with self._held("nvmlShutdown"):
            self._end()

    def driver_version(self) -> str:
        return str(self._ask("nvmlSystemGetDriverVersion"))

    def cuda_driver_version(self) -> int:
        return int(self._ask("nvmlSystemGetCudaDriverVersion"))

    def device_count(self) -> int:
        return int(self._ask("nvmlDeviceGetCount"))

    def device(self, index: int) -> LibraryNvmlDevice:
        return self._device("nvmlDeviceGetHandleByIndex", index)

    def device_by_uuid(self, uuid: str) -> LibraryNvmlDevice:
        return self._device("nvmlDeviceGetHandleByUUID", uuid)

    def _device(self, call: str, key: int | str) -> LibraryNvmlDevice:
        session = self._session
        if session is None:
            raise ended(call)
        return LibraryNvmlDevice(session, session.ask(call, key))

    def _ask(self, call: str, *arguments: Any) -> Any:
        session = self._session
        if session is None:
            raise ended(call)
        return session.ask(call, *arguments)

    def _is_loaded(self, path: Path) -> bool:
        return bool(self._library and self._library.path == path and self._library.is_current)

    def _end(self) -> None:
        """:raises NvmlError: a call is stuck in the library, which cannot be shut down under it."""
        if self._session is None:
            return
        if not self._session.end(patience_s=self._patience_s):
            raise _stuck("nvmlShutdown")
        self._session = None
        # A driver that is gone cannot be told, and the next initialisation does not mind.
        with contextlib.suppress(NvmlError):
            ask("nvmlShutdown")

    @contextlib.contextmanager
    def _held(self, call: str) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._patience_s):
            raise _stuck(call)
        try:
            yield
        finally:
            self._lock.release()


def _stuck(call: str) -> NvmlError:
    reason = "an earlier call has not returned yet"
    return NvmlError(call, code=pynvml.NVML_ERROR_TIMEOUT, reason=reason)


class LibraryNvmlDevice:
    """One GPU, by its NVML handle."""

    def __init__(self, session: Session, handle: Any) -> None:
        self._session = session
        self._handle = handle

    def uuid(self) -> str:
        return str(self._session.ask("nvmlDeviceGetUUID", self._handle))

    def minor_number(self) -> int:
        return int(self._session.ask("nvmlDeviceGetMinorNumber", self._handle))

    def name(self) -> str:
        return str(self._session.ask("nvmlDeviceGetName", self._handle))

    def memory_bytes(self) -> int:
        return int(self._session.ask("nvmlDeviceGetMemoryInfo", self._handle).total)

    def architecture(self) -> int:
        return int(self._session.ask("nvmlDeviceGetArchitecture", self._handle))

    def brand(self) -> int:
        return int(self._session.ask("nvmlDeviceGetBrand", self._handle))

    def compute_capability(self) -> tuple[int, int]:
        major, minor = self._session.ask("nvmlDeviceGetCudaComputeCapability", self._handle)
        return int(major), int(minor)

    def pci_bus_id(self) -> str:
        return str(self._session.ask("nvmlDeviceGetPciInfo", self._handle).busId)

    def addressing_mode(self) -> int:
        return int(self._session.ask("nvmlDeviceGetAddressingMode", self._handle))

    def mig_mode(self) -> MigMode:
        current, pending = self._session.ask("nvmlDeviceGetMigMode", self._handle)
        on = pynvml.NVML_DEVICE_MIG_ENABLE
        return MigMode(current=current == on, pending=pending == on)

    def mig_devices(self) -> tuple[MigHandle, ...]:
        return tuple(
            MigHandle(
                uuid=str(self._session.ask("nvmlDeviceGetUUID", handle)),
                gi_id=int(self._session.ask("nvmlDeviceGetGpuInstanceId", handle)),
                ci_id=int(self._session.ask("nvmlDeviceGetComputeInstanceId", handle)),
            )
            for handle in self._mig_handles()
        )

    def _mig_handles(self) -> Iterator[Any]:
        for index in range(self._session.ask("nvmlDeviceGetMaxMigDeviceCount", self._handle)):
            try:
                yield self._session.ask("nvmlDeviceGetMigDeviceHandleByIndex", self._handle, index)
            except NvmlError as error:
                # Indices are not dense: a destroyed device leaves a gap.
                if not isinstance(error, NotFound) and not _is_invalid_argument(error):
                    raise

    def compute_mode(self) -> int:
        return int(self._session.ask("nvmlDeviceGetComputeMode", self._handle))

    def set_compute_mode(self, mode: int) -> None:
        self._session.ask("nvmlDeviceSetComputeMode", self._handle, mode)

    def fabric_info(self) -> FabricInfo:
        found = self._fabric()
        return FabricInfo(
            cluster_uuid=str(uuid.UUID(bytes=bytes(found.clusterUuid))),
            clique=int(found.cliqueId),
            state=int(found.state) & 0xFF,  # one byte, of which the binding reads four
            status=int(found.status),
        )

    def _fabric(self) -> Any:
        newer = pynvml.c_nvmlGpuFabricInfo_v2_t()
        try:
            self._session.ask("nvmlDeviceGetGpuFabricInfoV", self._handle, newer)
        except NotSupported as error:
            if error.code not in _UNKNOWN_VERSION:
                raise
        else:
            return newer
        older = pynvml.c_nvmlGpuFabricInfo_t()
        self._session.ask("nvmlDeviceGetGpuFabricInfo", self._handle, older)
        return older

    def gi_profile(self, index: int) -> GiProfile:
        call = "nvmlDeviceGetGpuInstanceProfileInfo"
        try:
            # Version 1 of the structure: drivers since MIG's first know it.
            found = self._session.ask(call, self._handle, index, 1)
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
        found = self._session.ask("nvmlGpuInstanceGetInfo", self._gpu_instance(gi_id))
        return GiInstance(
            id=found.id,
            profile_id=found.profileId,
            placement=Placement(start=found.placement.start, size=found.placement.size),
        )

    def compute_instance(self, gi_id: int, ci_id: int) -> CiInstance:
        gpu_instance = self._gpu_instance(gi_id)
        handle = self._session.ask("nvmlGpuInstanceGetComputeInstanceById", gpu_instance, ci_id)
        found = self._session.ask("nvmlComputeInstanceGetInfo_v2", handle)
        return CiInstance(
            id=found.id,
            gi_id=gi_id,
            profile_id=found.profileId,
            slice_count=self._slice_count(gpu_instance, found.profileId),
        )

    def _gpu_instance(self, gi_id: int) -> Any:
        return self._session.ask("nvmlDeviceGetGpuInstanceById", self._handle, gi_id)

    def _slice_count(self, gpu_instance: Any, profile_id: int) -> int:
        """Slices of a compute instance profile, which NVML lists by index but records by id."""
        call = "nvmlGpuInstanceGetComputeInstanceProfileInfo"
        shared = pynvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
        for index in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
            try:
                profile = self._session.ask(call, gpu_instance, index, shared, 1)
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
