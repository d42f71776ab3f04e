"""A machine made of plain values, for tests of what reads one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nvdra_nodeagent.hardware.errors import (
    DriverMissing,
    HardwareError,
    NotFound,
    NotSupported,
    NvmlError,
)
from nvdra_nodeagent.hardware.ports import (
    CiInstance,
    DeviceNode,
    GiInstance,
    GiProfile,
    Machine,
    MigHandle,
    MigMode,
    Nvml,
    Placement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")

MIG_OFF = MigMode(current=False, pending=False)
H100_BYTES = 81559 * 1024**2


def nvml_error(call: str, *, code: int = 999, reason: str = "Unknown Error") -> NvmlError:
    return NvmlError(call, code=code, reason=reason)


def not_supported(call: str) -> NotSupported:
    return NotSupported(call, code=3, reason="Not Supported")


@dataclass
class PlainGpu:
    """Answers from its fields. A field that holds an exception is raised."""

    minor: int = 0
    bus_id: str | Exception = ""
    product: str | Exception = "NVIDIA H100 80GB HBM3"
    memory: int | Exception = H100_BYTES
    arch: int | Exception = 9
    brand_number: int | Exception = 14
    capability: tuple[int, int] | Exception = (9, 0)
    addressing: int | Exception = 1
    mig: MigMode | Exception = MIG_OFF
    handles: tuple[MigHandle, ...] | Exception = ()
    profiles: dict[int, GiProfile] = field(default_factory=dict)
    gis: dict[int, GiInstance] = field(default_factory=dict)
    cis: dict[tuple[int, int], CiInstance] = field(default_factory=dict)

    def uuid(self) -> str:
        return gpu_uuid(self.minor)

    def minor_number(self) -> int:
        return self.minor

    def name(self) -> str:
        return _answer(self.product)

    def memory_bytes(self) -> int:
        return _answer(self.memory)

    def architecture(self) -> int:
        return _answer(self.arch)

    def brand(self) -> int:
        return _answer(self.brand_number)

    def compute_capability(self) -> tuple[int, int]:
        return _answer(self.capability)

    def pci_bus_id(self) -> str:
        return _answer(self.bus_id) or f"00000000:{0x10 + self.minor:02X}:00.0"

    def addressing_mode(self) -> int:
        return _answer(self.addressing)

    def mig_mode(self) -> MigMode:
        return _answer(self.mig)

    def mig_devices(self) -> tuple[MigHandle, ...]:
        return _answer(self.handles)

    def gi_profile(self, index: int) -> GiProfile:
        if index not in self.profiles:
            raise not_supported("nvmlDeviceGetGpuInstanceProfileInfo")
        return self.profiles[index]

    def gpu_instance(self, gi_id: int) -> GiInstance:
        if gi_id not in self.gis:
            raise NotFound("nvmlDeviceGetGpuInstanceById", code=6, reason="Not Found")
        return self.gis[gi_id]

    def compute_instance(self, gi_id: int, ci_id: int) -> CiInstance:
        if (gi_id, ci_id) not in self.cis:
            raise NotFound("nvmlGpuInstanceGetComputeInstanceById", code=6, reason="Not Found")
        return self.cis[gi_id, ci_id]


@dataclass
class PlainNvml:
    gpus: list[Any]
    driver: str | Exception = "570.158.01"
    cuda: int | Exception = 12080
    count: int | Exception | None = None

    def init(self) -> None: ...

    def shutdown(self) -> None: ...

    def driver_version(self) -> str:
        return _answer(self.driver)

    def cuda_driver_version(self) -> int:
        return _answer(self.cuda)

    def device_count(self) -> int:
        return len(self.gpus) if self.count is None else _answer(self.count)

    def device(self, index: int) -> Any:
        gpu: Any = _answer(self.gpus[index])
        return gpu

    def device_by_uuid(self, uuid: str) -> Any:
        for gpu in self.gpus:
            if gpu.uuid() == uuid:
                return gpu
        raise NotFound("nvmlDeviceGetHandleByUUID", code=6, reason="Not Found")


@dataclass
class PlainPci:
    """NUMA node and root complex are alike for all functions."""

    numa: int | Exception | None = 0
    root: str | Exception | None = "pci0000:00"

    def numa_node(self, bus_id: str) -> int | None:
        return _answer(self.numa)

    def root_complex(self, bus_id: str) -> str | None:
        return _answer(self.root)

    def drm_nodes(self, bus_id: str) -> tuple[str, ...]:
        return ()


class NoFiles:
    """A machine without device nodes, driver files and hook."""

    def stat(self, path: str) -> DeviceNode | None:
        return None

    def mig_caps(self, gpu_minor: int, gi_id: int, ci_id: int) -> tuple[DeviceNode, ...]:
        raise HardwareError("no capabilities")


class NoImexNodes:
    """A machine whose driver has no IMEX channels."""

    def channels(self, numbers: Sequence[int]) -> tuple[DeviceNode, ...]:
        raise HardwareError("no channels")

    def management(self) -> DeviceNode:
        raise HardwareError("no capability")


class NoDriverRoot:
    container_path = Path("/driver-root")
    host_path = Path("/")

    def library(self, name: str) -> Path:
        raise DriverMissing(name, root="/driver-root", tried=("/usr/lib64",))

    binary = library


class NoSmi:
    """A machine without the driver's program."""

    def time_slice(self, gpu_uuid: str) -> int | None:
        raise DriverMissing("nvidia-smi", root="/driver-root", tried=("/usr/bin",))

    def set_time_slice(self, gpu_uuid: str, interval: int) -> None:
        self.time_slice(gpu_uuid)


class NoModule:
    """A machine whose kernel tells nothing."""

    def load(self) -> str:
        return ""

    def gpus(self) -> tuple[str, ...]:
        return ()


class NoHook:
    def host_path(self) -> str:
        raise HardwareError("no hook")


def a_machine(*gpus: Any, nvml: Nvml | None = None, pci: PlainPci | None = None) -> Machine:
    """A machine with these GPUs (`PlainGpu`, or anything that answers like one)."""
    return Machine(
        nvml=nvml or PlainNvml(list(gpus)),
        pci=pci or PlainPci(),
        device_nodes=NoFiles(),
        imex_nodes=NoImexNodes(),
        driver_root=NoDriverRoot(),
        cdi_hook=NoHook(),
        nvidia_smi=NoSmi(),
        driver_module=NoModule(),
    )


def gpu_uuid(minor: int) -> str:
    return f"GPU-00000000-0000-0000-0000-{minor:012d}"


ONE_G = GiProfile(
    index=0,
    id=19,
    slice_count=1,
    instance_count=7,
    multiprocessors=16,
    copy_engines=1,
    decoders=1,
    encoders=0,
    jpeg_engines=1,
    ofa_engines=0,
    memory_mb=9856,
)
THREE_G = replace(
    ONE_G, index=2, id=9, slice_count=3, instance_count=2, multiprocessors=60, memory_mb=40320
)


def a_mig_gpu(
    minor: int = 0, *, cut: tuple[tuple[GiProfile, int, int], ...] = (), **answers: Any
) -> PlainGpu:
    """An H100 in MIG mode. `cut` lists (profile, start, size) of its MIG devices."""
    instances = list(enumerate(cut, start=1))
    return PlainGpu(
        minor=minor,
        mig=MigMode(current=True, pending=True),
        handles=tuple(MigHandle(f"MIG-{minor}-{gi}", gi_id=gi, ci_id=0) for gi, _ in instances),
        profiles={profile.index: profile for profile in (ONE_G, THREE_G)},
        gis={
            gi: GiInstance(gi, profile.id, Placement(start, size))
            for gi, (profile, start, size) in instances
        },
        cis={
            (gi, 0): CiInstance(0, gi, profile_id=0, slice_count=profile.slice_count)
            for gi, (profile, _, _) in instances
        },
        **answers,
    )


class Failing:
    """Wraps a GPU: the named method fails, always or only the first time."""

    def __init__(self, gpu: Any, method: str, error: Exception, *, times: int = 1000) -> None:
        self._gpu = gpu
        self._method = method
        self._error = error
        self._times = times

    def __getattr__(self, name: str) -> Any:
        real: Callable[..., Any] = getattr(self._gpu, name)
        return self._fail_first(real) if name == self._method else real

    def _fail_first(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._times -= 1
            if self._times >= 0:
                raise self._error
            return real(*arguments)

        return call


def _answer(value: _T | Exception) -> _T:
    if isinstance(value, Exception):
        raise value
    return value
