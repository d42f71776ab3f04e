"""Devices that claims hold and the hardware has no more: published with a taint while held.

A device that left its slice could be neither explained nor tolerated; a taint on it says what is
wrong, keeps new claims away, and goes with the last claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from nvdra_api import names
from nvdra_nodeagent.hardware.pci import bus_id_order
from nvdra_nodeagent.slices.attributes import describe
from nvdra_nodeagent.slices.model import SliceDevice, Taint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nvdra_nodeagent.inventory.model import Device, Inventory

GPU_LOST: Final = Taint(f"{names.GPU_DRIVER}/gpu-lost", effect="NoSchedule")
MIG_LOST: Final = Taint(f"{names.GPU_DRIVER}/mig-lost", effect="NoSchedule")
"""The GPU is there, but is no longer cut so, or has left MIG mode."""


class HeldExtent(Protocol):
    """The GPU that a held device is on."""

    @property
    def gpu_uuid(self) -> str: ...


class Held(Protocol):
    """A device as a claim's record has it."""

    @property
    def device(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def uuid(self) -> str: ...
    @property
    def extent(self) -> HeldExtent: ...


@dataclass(frozen=True, slots=True)
class MissingDevice:
    """A held device that is not there; `last` is how it was last seen, if ever."""

    name: str
    type: str
    uuid: str
    taint: Taint
    last: Device | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """Where its GPU stands among the others; after all of them when nobody knows."""
        return bus_id_order(self.last.gpu.pci_bus_id) if self.last else (1 << 62,)

    def describe(self, *, list_attributes: bool) -> SliceDevice:
        if self.last is None:
            attributes = {names.ATTRIBUTE_TYPE: self.type, names.ATTRIBUTE_UUID: self.uuid}
            return SliceDevice(self.name, attributes, taints=(self.taint,))
        seen = describe(self.last, list_attributes=list_attributes)
        return SliceDevice(seen.name, seen.attributes, seen.capacity, taints=(self.taint,))


def missing_devices(
    held: Iterable[Held], inventory: Inventory, *, seen: Mapping[str, Device]
) -> tuple[MissingDevice, ...]:
    """Those of the held devices that are not offered now, by name. `seen` is how devices were.

    A name that has passed to other hardware is published as that.
    """
    found: dict[str, MissingDevice] = {}
    for each in held:
        if each.device in inventory.devices:
            continue
        last = seen.get(each.device)
        found[each.device] = MissingDevice(
            each.device,
            each.type,
            each.uuid,
            MIG_LOST if each.extent.gpu_uuid in inventory.uuids else GPU_LOST,
            last if last and last.uuid == each.uuid else None,
        )
    return tuple(found[name] for name in sorted(found))
