"""What a claim holds on this node, as the journal keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nvdra_nodeagent.claims.model import ClaimRef, PreparedDevice
from nvdra_nodeagent.claims.overlap import Extent, extent_of
from nvdra_nodeagent.steps.registry import AnyStep, Result  # noqa: TC001 - msgspec evaluates them

if TYPE_CHECKING:
    from nvdra_nodeagent.inventory.model import Inventory


class HeldDevice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One allocation result. `request` is the main request; an admin holder excludes nobody."""

    request: str
    pool: str
    device: str
    type: str
    uuid: str
    extent: Extent
    cdi_ids: tuple[str, ...]
    admin: bool = False
    share_id: str | None = None

    def prepared(self) -> PreparedDevice:
        """The same as the kubelet wants it."""
        return PreparedDevice(
            requests=(self.request,),
            pool=self.pool,
            device=self.device,
            cdi_ids=self.cdi_ids,
            share_id=self.share_id,
        )


class StepEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step that was intended, and its result once there is one."""

    step: AnyStep
    result: Result = None


class Record(msgspec.Struct, frozen=True):
    """The claim's place in the journal. `allocation` is the fingerprint of what it was made for."""

    claim: ClaimRef
    boot_id: str
    allocation: str
    devices: tuple[HeldDevice, ...]
    steps: tuple[StepEntry, ...]

    def prepared(self) -> tuple[PreparedDevice, ...]:
        return tuple(device.prepared() for device in self.devices)

    def gpu_uuids(self) -> frozenset[str]:
        """The GPUs that its steps may touch."""
        return frozenset(held.extent.gpu_uuid for held in self.devices if not held.admin)


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of which this node knows that it exists, but not exactly what it holds.

    Its devices are granted to nobody until a prepare, an unprepare or the sweeper settles it.
    `devices` and `gpu_uuids` are what could be salvaged. A `newer` record is whole, but was written
    by a later version of the agent, which alone can undo it. `free` are devices that it holds with
    admin access, which excludes nobody. `obstacle` is why it could not be given a record again.
    """

    uid: str
    reason: str
    devices: tuple[str, ...] = ()
    gpu_uuids: tuple[str, ...] = ()
    claim: ClaimRef | None = None
    newer: bool = False
    free: tuple[str, ...] = ()
    obstacle: str = ""

    def why(self) -> str:
        """Why its devices are held back."""
        return f"{self.reason}; {self.obstacle}" if self.obstacle else self.reason

    def extents(self, inventory: Inventory) -> tuple[Extent, ...]:
        """Exact where the device is known, else the whole GPU."""
        known = inventory.devices
        found = tuple(extent_of(known[name]) for name in self.devices if name in known)
        if found and len(found) == len(self.devices):
            return found
        # A GPU may have been cut or made whole since: its devices' names begin with its own.
        cut = tuple(
            Extent(gpu.uuid)
            for gpu in inventory.gpus
            for name in self.devices
            if name not in known and f"{name}-".startswith(f"{gpu.name}-")
        )
        return found + cut + tuple(Extent(uuid) for uuid in self.gpu_uuids)
