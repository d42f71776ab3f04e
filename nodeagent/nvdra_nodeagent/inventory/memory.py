"""What stays known of a GPU when a later look at it fails in part. Pure.

A question without an answer says nothing about the hardware. Only a GPU that is said to be lost,
or is no longer listed, is gone; everything else that cannot be read stays as it was last seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from nvdra_nodeagent.hardware.errors import GpuLost
from nvdra_nodeagent.hardware.pci import bus_id_order
from nvdra_nodeagent.inventory.model import Gpu, Inventory
from nvdra_nodeagent.inventory.vocabulary import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_nodeagent.inventory.model import MigDevice
    from nvdra_nodeagent.inventory.snapshot import Survey

_FIELDS: Final = {
    "memory": "memory_bytes",
    "pcieRoot": "pcie_root",
    "numaNode": "numa_node",
    "addressingMode": "addressing_mode",
    "architecture": "architecture",
    "brand": "brand",
}
"""Fields of a GPU by the attribute that a defect names."""

_MIG_DEVICES: Final = "MIG devices"


@dataclass(frozen=True, slots=True)
class Memory:
    """The last inventory, and which GPU sat at which index of NVML then."""

    inventory: Inventory = field(default_factory=Inventory)
    seats: tuple[str, ...] = ()

    def after(self, survey: Survey) -> Memory:
        """With what the survey found; what it could not read is taken from before."""
        now = survey.inventory
        if _is_another_driver(now, self.inventory):
            return Memory(now, _seated(survey, self.seats))
        before = {gpu.uuid: gpu for gpu in self.inventory.gpus}
        failed = _failed_attributes(now)
        gpus = [
            _completed(gpu, before[gpu.uuid], failed.get(gpu.name, frozenset()))
            if gpu.uuid in before
            else gpu
            for gpu in now.gpus
        ]
        gpus += self._kept(survey, before)
        gpus.sort(key=lambda gpu: bus_id_order(gpu.pci_bus_id))
        return Memory(
            replace(
                now,
                gpus=tuple(gpus),
                driver_version=now.driver_version or self.inventory.driver_version,
                driver_load=now.driver_load or self.inventory.driver_load,
            ),
            _seated(survey, self.seats),
        )

    def _kept(self, survey: Survey, before: Mapping[str, Gpu]) -> list[Gpu]:
        """GPUs that were not found, and may well be where a question got no answer."""
        present = {gpu.uuid for gpu in survey.inventory.gpus}
        names = {gpu.name for gpu in survey.inventory.gpus}
        missing = [gpu for gpu in before.values() if gpu.uuid not in present]
        silent = [
            index
            for index, seat in enumerate(survey.seats)
            if isinstance(seat, Exception) and not isinstance(seat, GpuLost)
        ]
        if not silent:
            return []
        if len(survey.seats) == len(self.seats):
            suspects = {self.seats[index] for index in silent}
            missing = [gpu for gpu in missing if gpu.uuid in suspects]
        return [gpu for gpu in missing if gpu.name not in names]


def _is_another_driver(now: Inventory, before: Inventory) -> bool:
    """After a driver was loaded anew nothing that was known counts: MIG devices are gone."""
    return bool(now.driver_load and before.driver_load and now.driver_load != before.driver_load)


def _seated(survey: Survey, before: tuple[str, ...]) -> tuple[str, ...]:
    """Seats that gave no answer are still taken by who sat there, as long as their number is."""
    same = len(before) == len(survey.seats)
    return tuple(
        seat.uuid if isinstance(seat, Gpu) else before[index] if same else ""
        for index, seat in enumerate(survey.seats)
    )


def _failed_attributes(inventory: Inventory) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for defect in inventory.defects:
        found.setdefault(defect.device, set()).add(defect.attribute)
    return {device: frozenset(attributes) for device, attributes in found.items()}


def _completed(gpu: Gpu, before: Gpu, failed: frozenset[str]) -> Gpu:
    if not failed:
        return gpu
    values: dict[str, Any] = {
        name: getattr(before, name)
        for attribute, name in _FIELDS.items()
        if attribute in failed and getattr(gpu, name) in (None, UNKNOWN)
    }
    if gpu.mig_enabled and before.mig_enabled:
        values["mig_devices"] = _completed_mig(gpu, before, failed)
    return replace(gpu, **values)


def _completed_mig(gpu: Gpu, before: Gpu, failed: frozenset[str]) -> tuple[MigDevice, ...]:
    found = {mig.name: mig for mig in gpu.mig_devices}
    for mig in before.mig_devices:
        if mig.uuid in failed or _MIG_DEVICES in failed:
            found.setdefault(mig.name, mig)
    return tuple(found[name] for name in sorted(found))
