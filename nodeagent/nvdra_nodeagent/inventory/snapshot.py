"""One pass over the machine: every GPU that answers, and a defect for every answer that is missing.

A GPU is left out when a fact is missing without which it could not be offered truthfully. The rest
degrades fact by fact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_kube.semver import to_semver
from nvdra_nodeagent.hardware.errors import HardwareError, NotSupported, SessionLost
from nvdra_nodeagent.hardware.pci import bus_id_order, normalise_bus_id
from nvdra_nodeagent.inventory import vocabulary
from nvdra_nodeagent.inventory.defects import DefectLog
from nvdra_nodeagent.inventory.mig import Parent, survey_mig
from nvdra_nodeagent.inventory.model import Gpu, Inventory

if TYPE_CHECKING:
    from nvdra_nodeagent.hardware.ports import Machine, MigMode, Nvml, NvmlDevice, Pci

_NODE = "node"


@dataclass(frozen=True, slots=True)
class _Versions:
    """The driver's versions: one for all GPUs. "" where unknown."""

    driver: str
    driver_semver: str
    cuda: str


@dataclass(frozen=True, slots=True)
class Survey:
    """A snapshot, and what was found at each NVML index: a GPU, why not, or None for a device that
    nobody computes on."""

    inventory: Inventory
    seats: tuple[Gpu | Exception | None, ...]
    session_lost: SessionLost | None = None


def take_snapshot(machine: Machine) -> Inventory:
    """What is on this node now. Blocks: callers hop to a thread.

    NVML is initialised if it is not, and left so. A node without GPUs has an empty inventory.
    Raises `HardwareError` when there is no driver to ask: that says nothing about the GPUs.
    """
    return take_survey(machine).inventory


def take_survey(machine: Machine) -> Survey:
    """As `take_snapshot`, for whoever knows what was there before."""
    machine.nvml.init()
    count = machine.nvml.device_count()
    log = DefectLog()
    versions = _versions(machine.nvml, log)
    load = _driver_load(versions.driver, machine.driver_module.load())
    seats = tuple(_gpu_at(machine, index, versions, log) for index in range(count))
    gpus = _unique([seat for seat in seats if isinstance(seat, Gpu)], log)
    inventory = Inventory(
        gpus=gpus, defects=log.defects, driver_version=versions.driver, driver_load=load
    )
    return Survey(inventory, seats, log.session_lost)


def _driver_load(version: str, module_load: str) -> str:
    """Where the kernel does not show its modules, a new version is all that can be told."""
    return f"{version} {module_load}".strip() if version else ""


def _versions(nvml: Nvml, log: DefectLog) -> _Versions:
    driver = log.parsed(_NODE, "driverVersion", nvml.driver_version)
    return _Versions(
        driver=driver,
        driver_semver=log.parsed(_NODE, "driverVersion", lambda: to_semver(driver))
        if driver
        else "",
        cuda=log.parsed(
            _NODE, "cudaDriverVersion", lambda: _cuda_version(nvml.cuda_driver_version())
        ),
    )


def _cuda_version(number: int) -> str:
    """NVML's 1000 x major + 10 x minor as a semantic version."""
    return to_semver(f"{number // 1000}.{number % 1000 // 10}")


def _gpu_at(
    machine: Machine, index: int, versions: _Versions, log: DefectLog
) -> Gpu | Exception | None:
    """The GPU at an NVML index, or why it cannot be offered; None when it is no compute device."""
    label = f"index {index}"
    try:
        device = machine.nvml.device(index)
        minor = device.minor_number()
        label = f"gpu-{minor}"
        return _gpu(machine.pci, device, minor, versions, log)
    except (HardwareError, ValueError) as error:
        log.note(label, "", error)
        return error


def _gpu(
    pci: Pci, device: NvmlDevice, minor: int, versions: _Versions, log: DefectLog
) -> Gpu | None:
    """Raises what makes the whole GPU unusable."""
    product = device.name()
    if product in vocabulary.DISPLAY_ADAPTERS:
        return None
    name = f"gpu-{minor}"
    bus_id = normalise_bus_id(device.pci_bus_id())
    memory_bytes = log.optional(name, "memory", device.memory_bytes)
    mig_mode = _mig_mode(device)
    mig_enabled = mig_mode is not None and mig_mode.current
    return Gpu(
        name=name,
        minor=minor,
        uuid=device.uuid(),
        product_name=product,
        brand=_brand(device, name, log),
        architecture=_architecture(device, name, log),
        compute_capability=to_semver("{}.{}".format(*device.compute_capability())),
        driver_version=versions.driver_semver,
        cuda_driver_version=versions.cuda,
        pci_bus_id=bus_id,
        pcie_root=log.optional(name, "pcieRoot", lambda: pci.root_complex(bus_id)),
        numa_node=log.optional(name, "numaNode", lambda: pci.numa_node(bus_id)),
        addressing_mode=_addressing_mode(device, name, log),
        memory_bytes=memory_bytes,
        mig_capable=mig_mode is not None,
        mig_enabled=mig_enabled,
        mig_devices=survey_mig(device, Parent(name, minor, memory_bytes), log)
        if mig_enabled
        else (),
    )


def _mig_mode(device: NvmlDevice) -> MigMode | None:
    """None on GPUs without MIG.

    Any other failure counts against the GPU: offering a partitioned GPU as a whole one would be
    wrong.
    """
    try:
        return device.mig_mode()
    except NotSupported:
        return None


def _architecture(device: NvmlDevice, name: str, log: DefectLog) -> str:
    number = log.optional(name, "architecture", device.architecture)
    words = vocabulary.ARCHITECTURES
    return log.word(name, "architecture", number, words, default=vocabulary.UNKNOWN)


def _brand(device: NvmlDevice, name: str, log: DefectLog) -> str:
    number = log.optional(name, "brand", device.brand)
    return log.word(name, "brand", number, vocabulary.BRANDS, default=vocabulary.UNKNOWN)


def _addressing_mode(device: NvmlDevice, name: str, log: DefectLog) -> str | None:
    number = log.optional(name, "addressingMode", device.addressing_mode)
    words = vocabulary.ADDRESSING_MODES
    return log.word(name, "addressingMode", number, words, default="") or None


def _unique(gpus: list[Gpu], log: DefectLog) -> tuple[Gpu, ...]:
    """GPUs in PCI order; of two with one name only the first, or the whole pool were invalid."""
    found: dict[str, Gpu] = {}
    for gpu in sorted(gpus, key=lambda gpu: bus_id_order(gpu.pci_bus_id)):
        if gpu.name in found:
            log.note(gpu.name, "", f"{gpu.uuid} has the minor number of {found[gpu.name].uuid}")
            continue
        found[gpu.name] = gpu
    return tuple(found.values())
