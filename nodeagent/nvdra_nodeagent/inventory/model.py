"""What is on this node: one immutable snapshot that planners decide on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Engines:
    """Counted resources of a MIG device (KEP-4815 capacities). Memory in bytes."""

    multiprocessors: int
    copy_engines: int
    decoders: int
    encoders: int
    jpeg_engines: int
    ofa_engines: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class MigDevice:
    """An existing MIG device. `name` is `gpu-<minor>-mig-<profile>-<gi profile id>-<start>`."""

    name: str
    uuid: str
    profile: str
    gi_id: int
    ci_id: int
    gi_profile_id: int
    placement_start: int
    placement_size: int
    engines: Engines


@dataclass(frozen=True, slots=True)
class Gpu:
    """A physical GPU. Optional facts are None when the machine does not know them.

    Versions are semantic versions as DRA wants them (`9.0.0`, `570.158.1`), memory is in bytes,
    `pci_bus_id` is the sysfs form. `mig_enabled` GPUs offer their `mig_devices`, not themselves.
    """

    name: str
    minor: int
    uuid: str
    product_name: str
    brand: str
    architecture: str
    compute_capability: str
    driver_version: str
    cuda_driver_version: str
    pci_bus_id: str
    pcie_root: str | None = None
    numa_node: int | None = None
    addressing_mode: str | None = None
    memory_bytes: int | None = None
    mig_capable: bool = False
    mig_enabled: bool = False
    mig_devices: tuple[MigDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class Defect:
    """Something that could not be read, and what is missing because of it."""

    device: str  # "gpu-0", "index 3", or "node"
    attribute: str  # "" when the whole device is left out
    cause: str


@dataclass(frozen=True, slots=True)
class Device:
    """One allocatable device: a whole GPU (`mig` is None) or one MIG device of it."""

    gpu: Gpu
    mig: MigDevice | None = None

    @property
    def name(self) -> str:
        return self.mig.name if self.mig else self.gpu.name

    @property
    def uuid(self) -> str:
        return self.mig.uuid if self.mig else self.gpu.uuid

    @property
    def type(self) -> str:
        """The `type` attribute: `gpu` or `mig`."""
        return "mig" if self.mig else "gpu"


@dataclass(frozen=True)
class Inventory:
    """All GPUs of the node in PCI order, and what could not be read. Safe to share."""

    gpus: tuple[Gpu, ...] = ()
    defects: tuple[Defect, ...] = ()
    driver_version: str = ""  # as NVML prints it, e.g. 570.158.01: part of library file names
    driver_load: str = ""  # another one whenever the driver was loaded anew; "" while unknown

    @cached_property
    def uuids(self) -> frozenset[str]:
        """Of everything that is there: GPUs, also those in MIG mode, and MIG devices."""
        whole = {gpu.uuid for gpu in self.gpus}
        return frozenset(whole | {mig.uuid for gpu in self.gpus for mig in gpu.mig_devices})

    @cached_property
    def devices(self) -> Mapping[str, Device]:
        """Allocatable devices by name, in publication order."""
        found: dict[str, Device] = {}
        for gpu in self.gpus:
            if not gpu.mig_enabled:
                found[gpu.name] = Device(gpu)
            for mig in sorted(gpu.mig_devices, key=lambda mig: mig.name):
                found[mig.name] = Device(gpu, mig)
        return MappingProxyType(found)
