"""The ports to the machine. Everything here is synchronous: callers hop once to a worker thread.

Each port has a real adapter in this package and a simulated one in `nvdra_sim.hardware`; both pass
the same contract tests. Every method may raise `HardwareError`; NVML methods raise its subclass
`NvmlError` (`NotSupported` where the device or driver lacks the feature, `GpuLost`, `NotFound`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class MigMode:
    """`nvmlDeviceGetMigMode`: what is on now, and what will be after the next reset."""

    current: bool
    pending: bool


@dataclass(frozen=True, slots=True)
class GiProfile:
    """A GPU instance profile (`nvmlDeviceGetGpuInstanceProfileInfo`).

    `index` is the NVML enum value asked for, `id` the number that instances and device names carry.
    """

    index: int
    id: int
    slice_count: int
    instance_count: int
    multiprocessors: int
    copy_engines: int
    decoders: int
    encoders: int
    jpeg_engines: int
    ofa_engines: int
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Memory slices [start, start + size) of a GPU."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class GiInstance:
    """A live GPU instance (`nvmlGpuInstanceGetInfo`)."""

    id: int
    profile_id: int
    placement: Placement


@dataclass(frozen=True, slots=True)
class CiInstance:
    """A live compute instance (`nvmlComputeInstanceGetInfo_v2`) with its profile's slice count."""

    id: int
    gi_id: int
    profile_id: int
    slice_count: int


@dataclass(frozen=True, slots=True)
class MigHandle:
    """A MIG device as NVML enumerates it: GPU instance, compute instance and `MIG-...` UUID."""

    uuid: str
    gi_id: int
    ci_id: int


class FabricState(IntEnum):
    """`nvmlGpuFabricState_t`: how far the GPU's registration with the NVLink fabric has come."""

    NOT_SUPPORTED = 0
    NOT_STARTED = 1
    IN_PROGRESS = 2
    COMPLETED = 3


@dataclass(frozen=True, slots=True)
class FabricInfo:
    """`nvmlGpuFabricInfo_v2_t`. `cluster_uuid` as text, all zeros for fabrics of one machine.

    `state` may be a number that is no `FabricState` yet; `status` is an `nvmlReturn_t` and counts
    once the state is `COMPLETED`.
    """

    cluster_uuid: str
    clique: int
    state: int
    status: int


class NvmlDevice(Protocol):
    """One physical GPU, as long as the session lasts that it comes from."""

    def uuid(self) -> str: ...
    def minor_number(self) -> int: ...
    def name(self) -> str: ...
    def memory_bytes(self) -> int: ...
    def architecture(self) -> int:
        """`nvmlDeviceArchitecture_t`: 7 Ampere, 9 Hopper, 10 Blackwell, ..."""
        ...

    def brand(self) -> int:
        """`nvmlBrandType_t`."""
        ...

    def compute_capability(self) -> tuple[int, int]: ...
    def pci_bus_id(self) -> str:
        """As NVML prints it (`00000000:65:00.0`); `pci.normalise_bus_id` gives the sysfs form."""
        ...

    def addressing_mode(self) -> int:
        """0 none, 1 HMM, 2 ATS; raises `NotSupported` on drivers without the call."""
        ...

    def mig_mode(self) -> MigMode:
        """Raises `NotSupported` on GPUs without MIG."""
        ...

    def mig_devices(self) -> tuple[MigHandle, ...]:
        """`nvmlDeviceGetMigDeviceHandleByIndex` over all indices, gaps skipped."""
        ...

    def gi_profile(self, index: int) -> GiProfile:
        """Raises `NotSupported` for profiles that this GPU does not offer."""
        ...

    def compute_mode(self) -> int:
        """`nvmlComputeMode_t`: 0 default, 2 prohibited, 3 exclusive process."""
        ...

    def set_compute_mode(self, mode: int) -> None:
        """Lost when the driver is unloaded. Needs root."""
        ...

    def fabric_info(self) -> FabricInfo:
        """`nvmlDeviceGetGpuFabricInfoV`; raises `NotSupported` on GPUs without NVLink fabric."""
        ...

    def gpu_instance(self, gi_id: int) -> GiInstance: ...
    def compute_instance(self, gi_id: int, ci_id: int) -> CiInstance: ...


class Nvml(Protocol):
    """The NVML library of one machine; `nvmlInitWithFlags(NO_GPUS)` semantics."""

    def init(self) -> None:
        """Idempotent. Begins anew when a call has answered `SessionLost` since, or when the library
        was replaced on disk; devices obtained before then answer `SessionLost` for ever.

        Raises `DriverMissing` when the library cannot be loaded.
        """
        ...

    def shutdown(self) -> None:
        """End the session: GPUs that came since it began are only seen by the next one."""
        ...

    def driver_version(self) -> str: ...
    def cuda_driver_version(self) -> int:
        """1000 x major + 10 x minor, e.g. 13000."""
        ...

    def device_count(self) -> int: ...
    def device(self, index: int) -> NvmlDevice: ...
    def device_by_uuid(self, uuid: str) -> NvmlDevice:
        """Raises `NotFound` when the driver has no such GPU (any more)."""
        ...


class Pci(Protocol):
    """What sysfs knows of a PCI function, by bus id in sysfs form (`0000:65:00.0`)."""

    def numa_node(self, bus_id: str) -> int | None:
        """None when the kernel has no answer (-1)."""
        ...

    def root_complex(self, bus_id: str) -> str | None:
        """First path element of the device below /sys/devices, e.g. `pci0000:64`."""
        ...

    def drm_nodes(self, bus_id: str) -> tuple[str, ...]:
        """Names under `drm/`, e.g. `("card1", "renderD128")`, sorted."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A character device as the container shall see it. `path` is the path in the container."""

    path: str
    host_path: str
    major: int
    minor: int
    mode: int
    gid: int


class DeviceNodes(Protocol):
    """Device nodes of the machine."""

    def stat(self, path: str) -> DeviceNode | None:
        """`path` as seen from the device root, e.g. `/dev/nvidia0`; None when it is not there."""
        ...

    def mig_caps(self, gpu_minor: int, gi_id: int, ci_id: int) -> tuple[DeviceNode, ...]:
        """The `/dev/nvidia-caps` nodes of a MIG device: GPU instance, then compute instance.

        From `/proc/driver/nvidia/capabilities` and the `nvidia-caps` major in `/proc/devices`.
        """
        ...


class ImexNodes(Protocol):
    """The device nodes of IMEX: memory channels of workloads, and the capability of its daemon.

    None of them needs to be there: container runtimes make them from their numbers.
    """

    def channels(self, numbers: Sequence[int]) -> tuple[DeviceNode, ...]:
        """Channels by number; the major is that of `nvidia-caps-imex-channels`.

        Raises `HardwareError` where the driver has no IMEX channels.
        """
        ...

    def management(self) -> DeviceNode:
        """The capability `fabric-imex-mgmt`. Raises `HardwareError` where there is none."""
        ...


class DriverRoot(Protocol):
    """The NVIDIA driver's files, seen through the container's mount of the host driver root."""

    @property
    def container_path(self) -> Path: ...

    @property
    def host_path(self) -> Path:
        """The same directory as the host sees it: what CDI mounts have to name."""
        ...

    def library(self, name: str) -> Path:
        """First regular file of that name in the library directories, links resolved.

        Raises `DriverMissing`.
        """
        ...

    def binary(self, name: str) -> Path:
        """The same for programs. Raises `DriverMissing`."""
        ...


class DriverModule(Protocol):
    """The NVIDIA kernel module as the kernel shows it, without asking the driver itself."""

    def load(self) -> str:
        """Changes when the module is loaded anew; "" while it is not loaded or not to be seen."""
        ...

    def gpus(self) -> tuple[str, ...]:
        """Bus ids of the GPUs bound to the driver, sorted; empty where that is not to be seen."""
        ...


class Announcer(Protocol):
    """Says when the hardware may have changed. Only `arm` blocks: it reads directories."""

    def open(self) -> int | None:
        """Begin; a file descriptor that is readable when there is news, None where not possible."""
        ...

    def arm(self) -> None:
        """Listen to what is there now; whoever looks arms first. May run beside the others."""
        ...

    def news(self) -> tuple[str, ...]:
        """Take what is to be read; each entry says in a few words what happened."""
        ...

    def close(self) -> None: ...


class NvidiaSmi(Protocol):
    """What only the driver's own program can do: the compute policy has no NVML call.

    A call starts a process and may take seconds. It raises `DriverMissing` when the program is not
    there, `NotSupported`, `NotFound` (no such GPU) and `GpuLost` as NVML does, `ProgramTimedOut`,
    and `ProgramFailed` for everything else; all carry what the program wrote.
    """

    def time_slice(self, gpu_uuid: str) -> int | None:
        """0 default, 1 short, 2 medium, 3 long; None when the driver does not tell."""
        ...

    def set_time_slice(self, gpu_uuid: str, interval: int) -> None:
        """Lost when the driver is unloaded. Needs root."""
        ...


class CdiHook(Protocol):
    """The host program that CDI hooks name (`nvidia-cdi-hook`)."""

    def host_path(self) -> str:
        """Path on the host. Raises `DriverMissing` when it is not there or not executable."""
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """All ports of one machine, as `main` wires them."""

    nvml: Nvml
    pci: Pci
    device_nodes: DeviceNodes
    imex_nodes: ImexNodes
    driver_root: DriverRoot
    cdi_hook: CdiHook
    nvidia_smi: NvidiaSmi
    driver_module: DriverModule
    announcers: tuple[Announcer, ...] = ()
