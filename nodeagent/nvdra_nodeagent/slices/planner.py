"""Plans the node's pool: which devices stand in which slice, in which order.

Order is a promise: schedulers take the first device that fits, slices by name, devices as listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.hardware.pci import bus_id_order
from nvdra_nodeagent.inventory.model import Defect, Inventory
from nvdra_nodeagent.slices.attributes import describe
from nvdra_nodeagent.slices.limits import MAX_DEVICES, fit
from nvdra_nodeagent.slices.model import SliceContent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nvdra_nodeagent.inventory.model import Device, Gpu
    from nvdra_nodeagent.slices.model import SliceDevice

# Older servers drop list attributes and then refuse the slice for the attribute without a value.
_LIST_ATTRIBUTES_SINCE: Final = (1, 36)


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """The slices of one pool in order, and what could not be put into them."""

    pool: str
    slices: tuple[SliceContent, ...]
    defects: tuple[Defect, ...] = ()


def plan_pool(
    inventory: Inventory, *, node: str, server: tuple[int, int], list_attributes: bool = False
) -> PoolPlan:
    """Pure: equal inventories give equal plans, whatever their GPUs' order.

    `server` is major and minor of the API server. `list_attributes` is the gate
    DRAListTypeAttributes. A node without devices has a pool of one empty slice, which says that
    its driver lives.
    """
    as_lists = list_attributes and server >= _LIST_ATTRIBUTES_SINCE
    defects: list[Defect] = []
    devices = list(_publishable(_in_order(inventory), defects, list_attributes=as_lists))
    return PoolPlan(node, _chunks(devices), tuple(defects))


def _in_order(inventory: Inventory) -> Iterator[Device]:
    """All devices by PCI address of the GPU, then name."""
    gpus = sorted(inventory.gpus, key=lambda gpu: bus_id_order(gpu.pci_bus_id))
    return chain.from_iterable(_devices(gpu) for gpu in gpus)


def _devices(gpu: Gpu) -> Iterable[Device]:
    return Inventory(gpus=(gpu,)).devices.values()


def _publishable(
    devices: Iterable[Device], defects: list[Defect], *, list_attributes: bool
) -> Iterator[SliceDevice]:
    published: set[str] = set()
    for device in devices:
        fitted, faults = fit(describe(device, list_attributes=list_attributes))
        defects += faults
        if fitted is None:
            continue
        if fitted.name in published:
            # Schedulers refuse a whole pool that names a device twice.
            defects.append(Defect(fitted.name, "", f"{device.uuid} has another device's name"))
            continue
        published.add(fitted.name)
        yield fitted


def _chunks(devices: list[SliceDevice]) -> tuple[SliceContent, ...]:
    starts = range(0, max(len(devices), 1), MAX_DEVICES)
    return tuple(SliceContent(tuple(devices[start : start + MAX_DEVICES])) for start in starts)
