"""From the journal's records to the checkpoint that an earlier driver goes on with: pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from nvdra_api.configs import (
    INTERVALS,
    TIME_SLICING,
    GpuConfig,
    GpuSharing,
    TimeSlicingConfig,
    encode_config,
)
from nvdra_nodeagent.checkpoint.document import (
    COMPLETED,
    ClaimEntry,
    ConfigState,
    GpuInfo,
    Group,
    KubeletDevice,
    MigInfo,
    PreparedEntry,
    PreparedGpu,
    PreparedMig,
)
from nvdra_nodeagent.steps.cdi import CdiStep
from nvdra_nodeagent.steps.registry import kind_of
from nvdra_nodeagent.steps.time_slice import TimeSliceStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nvdra_nodeagent.claims.record import HeldDevice, Record

_INTERVAL_NAMES: Final = {number: name for name, number in INTERVALS.items()}
_PARENT: Final = re.compile(r"gpu-(\d+)-mig-")


class Inexpressible(Exception):
    """The claim holds something that the format has no words for, or does not hold it yet."""


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    """Order and names are those of `DeviceRequestAllocationResult` in resource.k8s.io."""

    request: str
    driver: str
    pool: str
    device: str
    admin_access: bool | UnsetType = msgspec.field(name="adminAccess", default=UNSET)
    share_id: str | UnsetType = msgspec.field(name="shareID", default=UNSET)


class _Opaque(msgspec.Struct, frozen=True):
    driver: str
    parameters: dict[str, Any]


class AllocatedConfig(msgspec.Struct, frozen=True):
    """`DeviceAllocationConfiguration`."""

    source: str
    requests: tuple[str, ...]
    opaque: _Opaque


class _Devices(msgspec.Struct, frozen=True):
    results: tuple[_Result, ...]
    config: tuple[AllocatedConfig, ...] | UnsetType = UNSET


class _Allocation(msgspec.Struct, frozen=True):
    devices: _Devices


class ClaimStatus(msgspec.Struct, frozen=True):
    """As much of a claim's status as its record knows: what the earlier driver compares claims by.

    Of configs there is only what says which time slices are set: without it, whoever takes the
    checkpoint over, and that may be us again, cannot tell what to undo.
    """

    allocation: _Allocation


class Express(Protocol):
    """Says in the format what a record of one driver does."""

    def __call__(
        self, record: Record, *, driver: str, boot_id: str, seen: Sequence[str]
    ) -> ClaimEntry:
        """`seen` are the devices in the claim's CDI file. :raises Inexpressible: see there."""
        ...


def express(record: Record, *, driver: str, boot_id: str, seen: Sequence[str]) -> ClaimEntry:
    """Of a claim for GPUs: an `Express`."""
    check_complete(record, boot_id=boot_id, seen=seen)
    sliced = _sliced_gpus(record)
    return ClaimEntry(
        state=COMPLETED,
        status=status_of(record, driver=driver, configs=_configs(record, sliced, driver)),
        groups=_groups(record.devices, sliced),
    )


def check_complete(record: Record, *, boot_id: str, seen: Sequence[str]) -> None:
    """:raises Inexpressible: the claim is not prepared, or not any more."""
    if record.boot_id != boot_id:
        raise Inexpressible("it was prepared before the node's last boot")
    if not {held.device for held in record.devices if held.cdi_ids} <= set(seen):
        raise Inexpressible("it is not prepared completely: its CDI file lacks devices")


def status_of(record: Record, *, driver: str, configs: tuple[AllocatedConfig, ...]) -> ClaimStatus:
    """With these configs of the driver."""
    results = tuple(_result(held, driver) for held in record.devices)
    return ClaimStatus(_Allocation(_Devices(results, configs or UNSET)))


def a_config(request: str, driver: str, parameters: dict[str, Any]) -> AllocatedConfig:
    """From the claim, for one of its requests."""
    return AllocatedConfig("FromClaim", (request,), _Opaque(driver, parameters))


def answered(held: HeldDevice) -> KubeletDevice:
    """What the kubelet was told of the device."""
    return KubeletDevice(
        requests=(held.request,),
        pool=held.pool,
        name=held.device,
        cdi_ids=held.cdi_ids or None,
        share_id=held.share_id or UNSET,
    )


def _sliced_gpus(record: Record) -> dict[str, int]:
    """The interval by GPU."""
    found = {}
    for entry in record.steps:
        if isinstance(entry.step, TimeSliceStep):
            found[entry.step.gpu_uuid] = entry.step.interval
        elif not isinstance(entry.step, CdiStep):
            raise Inexpressible(f"it holds an effect of kind {kind_of(type(entry.step))}")
    return found


def _configs(record: Record, sliced: Mapping[str, int], driver: str) -> tuple[AllocatedConfig, ...]:
    """One for each request that has time slices: all GPUs of a request have the same."""
    intervals = {held.request: sliced[held.uuid] for held in record.devices if held.uuid in sliced}
    return tuple(
        a_config(request, driver, _slicing(interval)) for request, interval in intervals.items()
    )


def _slicing(interval: int) -> dict[str, Any]:
    slices = TimeSlicingConfig(interval=_INTERVAL_NAMES[interval])
    sharing = GpuSharing(strategy=TIME_SLICING, time_slicing_config=slices)
    return encode_config(GpuConfig(sharing=sharing))


def _result(held: HeldDevice, driver: str) -> _Result:
    return _Result(
        request=held.request,
        driver=driver,
        pool=held.pool,
        device=held.device,
        admin_access=held.admin or UNSET,
        share_id=held.share_id or UNSET,
    )


def _groups(devices: Sequence[HeldDevice], sliced: Mapping[str, int]) -> tuple[Group, ...]:
    """Time slices are undone by group."""
    with_slices = [held for held in devices if held.type == "gpu" and held.uuid in sliced]
    others = [held for held in devices if held not in with_slices]
    pairs = ((with_slices, ConfigState(time_slice_applied=True)), (others, ConfigState()))
    return tuple(Group(tuple(map(_prepared, held)), state) for held, state in pairs if held)


def _prepared(held: HeldDevice) -> PreparedEntry:
    if held.type == "gpu":
        return PreparedEntry(gpu=PreparedGpu(GpuInfo(held.uuid), answered(held)))
    return PreparedEntry(mig=PreparedMig(_mig(held), answered(held)))


def _mig(held: HeldDevice) -> MigInfo:
    parent = _PARENT.match(held.device)
    if held.type != "mig" or held.extent.mig is None or parent is None:
        raise Inexpressible(f"not enough is known of {held.device}, of type {held.type}")
    return MigInfo(
        parent_minor=int(parent[1]),
        gi_id=held.extent.mig.gi_id,
        ci_id=held.extent.mig.ci_id,
        uuid=held.uuid,
        parent_uuid=held.extent.gpu_uuid,
    )
