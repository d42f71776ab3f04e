"""Who may not have a device at the same time as somebody else, decided by physical GPU.

Names are not enough: a whole GPU and a MIG device of it have different names and one silicon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from nvdra_nodeagent.inventory.model import Device


class MigExtent(msgspec.Struct, frozen=True):
    """The part of a GPU that a MIG device uses: memory slices, and the instances by id."""

    start: int
    size: int
    gi_id: int
    ci_id: int


class Extent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a physical GPU a device uses; all of it when `mig` is None."""

    gpu_uuid: str
    mig: MigExtent | None = None


def extent_of(device: Device) -> Extent:
    mig = device.mig
    if mig is None:
        return Extent(device.gpu.uuid)
    return Extent(
        device.gpu.uuid,
        MigExtent(mig.placement_start, mig.placement_size, mig.gi_id, mig.ci_id),
    )


def overlap(one: Extent, other: Extent) -> bool:
    """Whether the two cannot be used exclusively at the same time."""
    if one.gpu_uuid != other.gpu_uuid:
        return False
    if one.mig is None or other.mig is None:
        return True
    return _slices_meet(one.mig, other.mig) and not _neighbours(one.mig, other.mig)


def _slices_meet(one: MigExtent, other: MigExtent) -> bool:
    return one.start < other.start + other.size and other.start < one.start + one.size


def _neighbours(one: MigExtent, other: MigExtent) -> bool:
    """Two compute instances of one GPU instance share its memory slices by design."""
    same_instance = (one.gi_id, one.start, one.size) == (other.gi_id, other.start, other.size)
    return same_instance and one.ci_id != other.ci_id
