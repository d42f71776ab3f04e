"""From a claim to the steps that make its devices usable: decided at once, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nvdra_api import GpuConfig, MigDeviceConfig
from nvdra_api.configs import DEFAULT_INTERVAL, INTERVALS, TIME_SLICING
from nvdra_nodeagent.claims.overlap import Extent, extent_of, overlap
from nvdra_nodeagent.claims.record import HeldDevice
from nvdra_nodeagent.claims.selection import select_configs
from nvdra_nodeagent.errors import Permanent, Retryable
from nvdra_nodeagent.steps.cdi import CdiDevice, CdiStep
from nvdra_nodeagent.steps.time_slice import TimeSliceStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nvdra_api import FeatureGates, OpaqueConfig
    from nvdra_api.configs import GpuSharing
    from nvdra_nodeagent.claims.allocation import AllocatedClaim, DeviceResult
    from nvdra_nodeagent.claims.record import Fence, Record
    from nvdra_nodeagent.inventory.model import Device, Inventory
    from nvdra_nodeagent.steps.registry import AnyStep


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the claims of this node hold; the planned claim's own part is ignored."""

    records: tuple[Record, ...] = ()
    fences: tuple[Fence, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order of applying; devices in the order of allocation."""

    steps: tuple[AnyStep, ...]
    devices: tuple[HeldDevice, ...]


class Study(Protocol):
    """A claim with everything that planning it needs, looked up before any lock is taken."""

    @property
    def locks(self) -> frozenset[str]:
        """The GPUs, or what stands for them in another driver, that its steps may touch."""
        ...

    def plan(self, holdings: Holdings) -> Plan:
        """Pure. :raises AgentError: the claim cannot be served (`Permanent`), or not now."""
        ...


class Planner(Protocol):
    """How the claims of one driver are planned."""

    @property
    def driver(self) -> str: ...

    async def study(self, claim: AllocatedClaim) -> Study:
        """Look up what planning needs. What could not be found out is said by `Study.plan`: an
        earlier preparation of the claim is answered all the same."""
        ...


@dataclass(frozen=True, slots=True)
class PlanRules:
    """What does not change from claim to claim. `cdi_id` names a claim's device for CDI."""

    driver: str
    gates: FeatureGates
    cdi_id: Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class GpuStudy(Study):
    """A claim for GPUs, and the GPUs as they are now."""

    claim: AllocatedClaim
    inventory: Inventory
    rules: PlanRules

    @property
    def locks(self) -> frozenset[str]:
        return gpus_of(self.claim, self.inventory)

    def plan(self, holdings: Holdings) -> Plan:
        return make_plan(self.claim, inventory=self.inventory, holdings=holdings, rules=self.rules)


@dataclass(frozen=True, slots=True)
class GpuPlanner(Planner):
    """Plans claims for GPUs by the inventory alone."""

    rules: PlanRules
    inventory: Callable[[], Inventory]

    @property
    def driver(self) -> str:
        return self.rules.driver

    async def study(self, claim: AllocatedClaim) -> GpuStudy:
        return GpuStudy(claim, self.inventory(), self.rules)


def make_plan(
    claim: AllocatedClaim, *, inventory: Inventory, holdings: Holdings, rules: PlanRules
) -> Plan:
    """:raises AgentError: the claim cannot be served (`Permanent`), or not now (`Retryable`)."""
    pairs = [(result, _device(result, inventory)) for result in claim.results]
    wanted = [(result, device.type) for result, device in pairs]
    configs = select_configs(claim.configs, wanted, driver=rules.driver, gates=rules.gates)
    time_slices = _time_slice_steps(claim.ref.uid, pairs, configs)
    held = tuple(_hold(claim.ref.uid, result, device, rules) for result, device in pairs)
    _check_within(held)
    _check_holders(claim.ref.uid, held, holdings, inventory)
    # The file comes last, and goes first: no container starts before its GPUs are as it wants them.
    return Plan(steps=(*time_slices, _cdi_step(claim.ref.uid, pairs)), devices=held)


def gpus_of(claim: AllocatedClaim, inventory: Inventory) -> frozenset[str]:
    """The GPUs to lock for a claim; admin access changes nothing on a GPU, so it needs none."""
    devices = (inventory.devices.get(result.device) for result in claim.results if not result.admin)
    return frozenset(device.gpu.uuid for device in devices if device)


def _device(result: DeviceResult, inventory: Inventory) -> Device:
    device = inventory.devices.get(result.device)
    if device is None:
        present = ", ".join(inventory.devices) or "none"
        raise Retryable(
            "DeviceNotFound",
            f"device {result.device} of request {result.request} is not on this node "
            f"(present: {present})",
            hint="check the GPU on the node; delete the pod to have it scheduled anew",
        )
    return device


def _time_slice_steps(
    uid: str, pairs: Sequence[tuple[DeviceResult, Device]], configs: Sequence[OpaqueConfig]
) -> tuple[TimeSliceStep, ...]:
    """One for each GPU that is shared by time. The time slices of MIG devices cannot be set:
    asking for them is accepted, without effect. Admin access never has any effect on a GPU."""
    steps = {}
    for (result, device), config in zip(pairs, configs, strict=True):
        if result.admin or not isinstance(config, GpuConfig | MigDeviceConfig):
            continue
        if config.sharing and config.sharing.strategy != TIME_SLICING:
            raise _not_applicable(config.sharing.strategy, result)
        if isinstance(config, GpuConfig) and config.sharing:
            steps[device.gpu.uuid] = TimeSliceStep(uid, device.gpu.uuid, _interval(config.sharing))
    return tuple(steps.values())


def _interval(sharing: GpuSharing) -> int:
    asked = sharing.time_slicing_config.interval if sharing.time_slicing_config else None
    return INTERVALS[asked or DEFAULT_INTERVAL]


def _not_applicable(strategy: str, result: DeviceResult) -> Permanent:
    return Permanent(
        "SharingUnsupported",
        f'sharing strategy "{strategy}" of request {result.request} cannot be applied to '
        f"{result.device}: this version of the driver does not set it",
        hint="remove `sharing` from the config; containers may share a claim without it",
    )


def _hold(uid: str, result: DeviceResult, device: Device, rules: PlanRules) -> HeldDevice:
    return HeldDevice(
        request=result.main_request,
        pool=result.pool,
        device=device.name,
        type=device.type,
        uuid=device.uuid,
        extent=extent_of(device),
        cdi_ids=(rules.cdi_id(uid, device.name),),
        admin=result.admin,
        share_id=result.share_id,
    )


def _cdi_step(uid: str, pairs: Sequence[tuple[DeviceResult, Device]]) -> CdiStep:
    """A device that several requests hold (shares, admin access) has one entry."""
    devices = {device.name: CdiDevice(device.name, device.uuid) for _, device in pairs}
    return CdiStep(uid, tuple(devices.values()))


def _check_within(held: Sequence[HeldDevice]) -> None:
    for index, one in enumerate(held):
        for other in held[:index]:
            if _exclude(one, other):
                raise Permanent(
                    "DeviceConflict",
                    f"{one.device} of request {one.request} and {other.device} of request "
                    f"{other.request} use the same GPU {one.extent.gpu_uuid}",
                    hint="the scheduler's view of this node is wrong: check its ResourceSlices",
                )


def _check_holders(
    uid: str, held: Sequence[HeldDevice], holdings: Holdings, inventory: Inventory
) -> None:
    exclusive = [device for device in held if not device.admin]
    for record in holdings.records:
        if record.claim.uid == uid:
            continue
        for device in exclusive:
            for other in record.devices:
                if _exclude(device, other):
                    raise _taken(device, f"claim {record.claim} holds {other.device}")
    for fence, extent in _fenced(uid, holdings, inventory):
        for device in exclusive:
            if overlap(device.extent, extent):
                raise _fenced_off(device, fence)


def _fenced(uid: str, holdings: Holdings, inventory: Inventory) -> Iterator[tuple[Fence, Extent]]:
    for fence in holdings.fences:
        if fence.uid != uid:
            for extent in fence.extents(inventory):
                yield fence, extent


def _exclude(one: HeldDevice, other: HeldDevice) -> bool:
    """Admin access excludes nobody; shares of one device are counted by the scheduler."""
    if one.admin or other.admin or not overlap(one.extent, other.extent):
        return False
    return not (one.share_id and other.share_id and one.device == other.device)


def _taken(device: HeldDevice, holder: str) -> Retryable:
    return Retryable(
        "DeviceInUse",
        f"{device.device} of request {device.request} is on GPU {device.extent.gpu_uuid}, "
        f"of which {holder}",
        hint="it becomes free when the pods of that claim have ended",
    )


def _fenced_off(device: HeldDevice, fence: Fence) -> Retryable:
    return Retryable(
        "DeviceFenced",
        f"{device.device} of request {device.request} is held back on GPU "
        f"{device.extent.gpu_uuid}: claim {fence.uid} may hold it ({fence.why()})",
        hint="it becomes free when that claim is prepared again, unprepared or deleted",
    )
