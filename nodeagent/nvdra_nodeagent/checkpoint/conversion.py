"""From a checkpointed claim to the journal's record of it, or to a fence: pure.

What is not understood, and what was left half done, becomes a fence: its devices are granted to
nobody until the claim is prepared again, unprepared, deleted, or reconciled with the API.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from msgspec import UNSET

from nvdra_api import FeatureGates, GpuConfig
from nvdra_api.configs import DEFAULT_INTERVAL, INTERVALS
from nvdra_nodeagent.checkpoint.document import (
    COMPLETED,
    Prepared,
    PreparedGpu,
    PreparedMig,
    PreparedPlace,
)
from nvdra_nodeagent.claims.allocation import parse_claim
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.overlap import Extent, extent_of
from nvdra_nodeagent.claims.record import Fence, HeldDevice, Record, StepEntry
from nvdra_nodeagent.claims.selection import select_configs
from nvdra_nodeagent.errors import Permanent
from nvdra_nodeagent.inventory.model import Inventory
from nvdra_nodeagent.steps.cdi import CdiDevice, CdiStep
from nvdra_nodeagent.steps.time_slice import TimeSliceStep

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nvdra_nodeagent.checkpoint.document import ClaimEntry, Group
    from nvdra_nodeagent.claims.allocation import AllocatedClaim, DeviceResult

_EVERY_SHARING: Final = FeatureGates.parse("TimeSlicingSettings=true,MPSSupport=true")
_DEVICE: Final = re.compile(rb'"(?:[dD]eviceName|device)":"([a-z0-9][a-z0-9-]{0,62})"')
_GPU: Final = re.compile(rb'"(?:uuid|UUID|parentUUID)":"(GPU-[0-9A-Fa-f-]{1,64})"')
_BEFORE_SLICING: Final = {"compute_mode": "0", "time_slice": "0"}
"""What the earlier driver restores when the claim ends, whatever was found before."""


class NotUnderstood(Exception):
    """The entry holds something that a record of this version cannot express."""


@dataclass(frozen=True, slots=True)
class EarlierNode:
    """What all claims of a node have in common."""

    driver: str
    pool: str
    boot_id: str
    inventory: Inventory = field(default_factory=Inventory)


class RecordMaker(Protocol):
    """Makes the record of a claim whose prepare was completed.

    :raises NotUnderstood: see there. :raises Permanent: its status is not of this node.
    """

    def __call__(self, uid: str, entry: ClaimEntry, node: EarlierNode) -> Record: ...


def convert(
    uid: str, entry: ClaimEntry, *, node: EarlierNode, sealed: bool, make: RecordMaker
) -> Record | Fence:
    """Where the checkpoint's own checksum does not hold it is not `sealed`: any UUID in it may be
    another one's, and CDI files do not tell."""
    if not sealed:
        return _fence_of_all(uid, entry, node)
    if entry.state != COMPLETED:
        return _fence(uid, entry, node, "its prepare by an earlier driver was not finished")
    try:
        return make(uid, entry, node)
    except (NotUnderstood, Permanent) as error:
        return _fence(uid, entry, node, f"prepared by an earlier driver: {error}")


def gpu_record(uid: str, entry: ClaimEntry, node: EarlierNode) -> Record:
    """A `RecordMaker`: of GPUs and MIG devices."""
    claim = allocated(uid, entry, node)
    groups = entry.groups or ()
    prepared = dict(_prepared(groups))
    if {result.device for result in claim.results} != set(prepared):
        raise NotUnderstood("its devices are not those that are allocated to it")
    devices = tuple(_held(result, prepared[result.device], node) for result in claim.results)
    named = {held.device: CdiDevice(held.device, held.uuid) for held in devices}
    steps = [StepEntry(step, _BEFORE_SLICING) for step in _time_slices(claim, groups)]
    return Record(
        claim=claim.ref,
        boot_id=node.boot_id,
        allocation=claim.fingerprint,
        devices=devices,
        steps=(*steps, StepEntry(CdiStep(uid, tuple(named.values())))),
    )


def allocated(uid: str, entry: ClaimEntry, node: EarlierNode) -> AllocatedClaim:
    """The claim as its status has it. :raises Permanent: that is not of this node."""
    body = {"metadata": {"uid": uid}, "status": entry.status}
    return parse_claim(body, ref=_ref(uid, entry), driver=node.driver, pool=node.pool)


def _ref(uid: str, entry: ClaimEntry) -> ClaimRef:
    """Completed claims have no name there; it is looked up in the API later."""
    return ClaimRef(entry.namespace or "", entry.name or "", uid)


def _prepared(groups: Sequence[Group]) -> Iterator[tuple[str, PreparedGpu | PreparedMig]]:
    for group in groups:
        if group.state.mps_daemon or group.state.mps_applied:
            raise NotUnderstood("it shares its devices through MPS")
        for each in group.devices or ():
            device = each.device()
            if not isinstance(device, PreparedGpu | PreparedMig):
                raise NotUnderstood("it holds a device that is neither a GPU nor a MIG device")
            yield device.device.name, device


def _held(
    result: DeviceResult, prepared: PreparedGpu | PreparedMig, node: EarlierNode
) -> HeldDevice:
    answered = prepared.device
    return HeldDevice(
        request=result.main_request,
        pool=result.pool,
        device=result.device,
        type="mig" if isinstance(prepared, PreparedMig) else "gpu",
        uuid=_uuid(prepared),
        extent=_extent(prepared, node.inventory),
        cdi_ids=answered.cdi_ids or (),
        admin=result.admin,
        share_id=result.share_id,
    )


def _uuid(prepared: PreparedGpu | PreparedMig) -> str:
    return prepared.concrete.uuid if isinstance(prepared, PreparedMig) else prepared.info.uuid


def _extent(prepared: PreparedGpu | PreparedMig, inventory: Inventory) -> Extent:
    """Of a MIG device that is not seen (yet), only the GPU is known."""
    if isinstance(prepared, PreparedGpu):
        return Extent(prepared.info.uuid)
    for device in inventory.devices.values():
        if device.uuid == prepared.concrete.uuid:
            return extent_of(device)
    return Extent(prepared.concrete.parent_uuid)


def _time_slices(claim: AllocatedClaim, groups: Sequence[Group]) -> Iterator[TimeSliceStep]:
    """One for each whole GPU in a group whose time slices were set."""
    sliced = {
        device.device.name: device.info.uuid
        for group in groups
        if group.state.time_slice_applied not in (UNSET, False)
        for device in (each.device() for each in group.devices or ())
        if isinstance(device, PreparedGpu)
    }
    intervals = dict(_intervals(claim, sliced)) if sliced else {}
    for name, uuid in sliced.items():
        if name not in intervals:
            raise NotUnderstood(f"the time slice of {name} was set without a config that says so")
        yield TimeSliceStep(claim.ref.uid, uuid, intervals[name])


def _intervals(claim: AllocatedClaim, sliced: dict[str, str]) -> Iterator[tuple[str, int]]:
    wanted = [(result, "gpu") for result in claim.results if result.device in sliced]
    configs = select_configs(
        claim.configs, wanted, driver=wanted[0][0].driver, gates=_EVERY_SHARING
    )
    for (result, _), config in zip(wanted, configs, strict=True):
        if isinstance(config, GpuConfig) and config.sharing:
            slicing = config.sharing.time_slicing_config
            yield result.device, INTERVALS[(slicing and slicing.interval) or DEFAULT_INTERVAL]


def _fence(uid: str, entry: ClaimEntry, node: EarlierNode, reason: str) -> Fence:
    """With the devices of the allocation, and those that were prepared of it."""
    ref = _ref(uid, entry)
    try:
        results = allocated(uid, entry, node).results
    except Permanent:
        results = ()
    free = {result.device for result in results if result.admin}
    prepared = [device for device in _devices(entry) if device.device.name not in free]
    held = [result.device for result in results if not result.admin]
    return Fence(
        uid=uid,
        reason=reason,
        devices=tuple(dict.fromkeys((*held, *(each.device.name for each in prepared)))),
        gpu_uuids=tuple(dict.fromkeys(uuid for each in prepared if (uuid := _gpu_uuid(each)))),
        claim=ref if ref.name else None,
        free=tuple(sorted(free)),
    )


def _fence_of_all(uid: str, entry: ClaimEntry, node: EarlierNode) -> Fence:
    """Also of what it says to hold by admin access: that may be damaged too."""
    fence = _fence(uid, entry, node, "prepared by an earlier driver: wrong checksum")
    names = tuple(dict.fromkeys((*fence.devices, *fence.free)))
    return msgspec.structs.replace(fence, devices=names, free=())


def fence_of_puzzle(uid: str, cause: str, text: bytes) -> Fence:
    """What an entry of unknown form says of devices and GPUs."""
    return Fence(
        uid=uid,
        reason=f"prepared by an earlier driver: {cause}",
        devices=_found(_DEVICE, text),
        gpu_uuids=_found(_GPU, text),
    )


def _found(pattern: re.Pattern[bytes], text: bytes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(match.decode() for match in pattern.findall(text)))


def _devices(entry: ClaimEntry) -> Iterator[Prepared | PreparedPlace]:
    for group in entry.groups or ():
        for each in group.devices or ():
            if device := each.device() or each.place():
                yield device


def _gpu_uuid(device: Prepared | PreparedPlace) -> str:
    if isinstance(device, PreparedPlace):
        return ""
    return device.concrete.parent_uuid if isinstance(device, PreparedMig) else device.info.uuid
