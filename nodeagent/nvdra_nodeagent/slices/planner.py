"""Plans the node's pool: which devices stand in which slice, in which order.

Order is a promise: schedulers take the first device that fits, slices by name, devices as listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_api.names import ATTRIBUTE_UUID
from nvdra_nodeagent.hardware.pci import bus_id_order
from nvdra_nodeagent.inventory.model import Defect, Device, Inventory
from nvdra_nodeagent.slices.attributes import describe
from nvdra_nodeagent.slices.limits import MAX_DEVICES, fit
from nvdra_nodeagent.slices.model import SliceContent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nvdra_nodeagent.slices.missing import MissingDevice
    from nvdra_nodeagent.slices.model import SliceDevice

# Older servers drop list attributes and then refuse the slice for the attribute without a value.
_LIST_ATTRIBUTES_SINCE: Final = (1, 36)
_TAINTS_SINCE: Final = (1, 33)


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """The slices of one pool in order, and what could not be put into them."""

    pool: str
    slices: tuple[SliceContent, ...]
    defects: tuple[Defect, ...] = ()


def plan_pool(
    inventory: Inventory,
    *,
    node: str,
    server: tuple[int, int],
    list_attributes: bool = False,
    missing: Iterable[MissingDevice] = (),
) -> PoolPlan:
    """Pure: equal inventories give equal plans, whatever their GPUs' order.

    `server` is major and minor of the API server. `list_attributes` is the gate
    DRAListTypeAttributes. `missing` are held devices that are not there: published with their taint
    where the server knows taints, left out where it does not. A node without devices has a pool of
    one empty slice, which says that its driver lives.
    """
    as_lists = list_attributes and server >= _LIST_ATTRIBUTES_SINCE
    defects: list[Defect] = []
    known = tuple(missing) if server >= _TAINTS_SINCE else ()
    described = _described(inventory, known, list_attributes=as_lists)
    devices = list(_publishable(described, defects))
    return PoolPlan(node, _chunks(devices), tuple(defects))


def _described(
    inventory: Inventory, missing: Iterable[MissingDevice], *, list_attributes: bool
) -> Iterator[SliceDevice]:
    """All devices by PCI address of the GPU, then name."""
    placed: list[tuple[tuple[int, ...], str, Device | MissingDevice]] = [
        (bus_id_order(device.gpu.pci_bus_id), device.name, device)
        for gpu in inventory.gpus
        for device in Inventory(gpus=(gpu,)).devices.values()
    ]
    placed += [(each.order, each.name, each) for each in missing]
    for _, _, device in sorted(placed, key=lambda place: place[:2]):
        if isinstance(device, Device):
            yield describe(device, list_attributes=list_attributes)
        else:
            yield device.describe(list_attributes=list_attributes)


def _publishable(devices: Iterable[SliceDevice], defects: list[Defect]) -> Iterator[SliceDevice]:
    published: set[str] = set()
    for device in devices:
        fitted, faults = fit(device)
        defects += faults
        if fitted is None:
            continue
        if fitted.name in published:
            # Schedulers refuse a whole pool that names a device twice.
            uuid = device.attributes.get(ATTRIBUTE_UUID, "it")
            defects.append(Defect(fitted.name, "", f"{uuid} has another device's name"))
            continue
        published.add(fitted.name)
        yield fitted


def _chunks(devices: list[SliceDevice]) -> tuple[SliceContent, ...]:
    starts = range(0, max(len(devices), 1), MAX_DEVICES)
    return tuple(SliceContent(tuple(devices[start : start + MAX_DEVICES])) for start in starts)
