"""What agents are doing when they are killed: for every kind of step, in every operation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.migration import take_over
from nvdra_nodeagent.errors import Retryable
from nvdra_nodeagent.hardware.errors import ProgramFailed
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep
from nvdra_nodeagent.steps.domain_ready import DomainReadyStep
from nvdra_nodeagent.steps.node_label import NodeLabelStep
from nvdra_testing.checkpoints import a_checkpoint, a_completed, a_gpu_device, a_group
from nvdra_testing.claims import (
    BOOT,
    DRIVER,
    NODE,
    OTHER_BOOT,
    ClaimNode,
    a_config_entry,
    a_node_of,
    a_ref,
    a_result,
    gpu_uuid,
)
from nvdra_testing.configs import SHARING_ON, a_config, time_slicing
from nvdra_testing.domain_steps import DOMAIN, a_daemon_cdi, a_domain_dir

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.service import NodeClaims
    from nvdra_nodeagent.steps.registry import AnyStep

REF, PEER, RIVAL = a_ref(), a_ref("peer"), a_ref("rival")
"""The claim that is worked on, one that shares its GPU, one that wants its GPU alone."""


def _broken_disk(node: ClaimNode) -> None:
    node.cdi.failing = Retryable("StorageUnwritable", "no CDI file can be written or removed")


def _broken_gpus(node: ClaimNode) -> None:
    node.gpus.failing = ProgramFailed("nvidia-smi", outcome="ended with status 255", output="")


def _without_cdi_file(node: ClaimNode) -> None:
    node.cdi.remove(REF.uid)


def _without_effect(node: ClaimNode) -> None:
    """As a driver that was loaded anew leaves the GPU, and the file is lost too."""
    for minor in range(2):
        node.gpus.make(minor)
        path = node.root / "state" / "effects" / f"time_slice.{gpu_uuid(minor)}.json"
        path.unlink(missing_ok=True)


def _long_slice(node: ClaimNode) -> None:
    node.gpus.make(0, time_slice=3)


def _nothing(node: ClaimNode) -> None: ...


def _broken_domain(node: ClaimNode) -> None:
    node.domain.failing = Retryable("ApiUnavailable", "neither the API nor a disk answers")


def _without_settings(node: ClaimNode) -> None:
    for path in node.domain.root.rglob("settings.json"):
        path.unlink()


def _without_domain_file(node: ClaimNode) -> None:
    node.domain.files.remove(REF.uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCase:
    """`config` gives a claim a step of the kind. `spoil` makes an applied step untrue, with `fail`
    neither applying nor undoing it works. `can_wait` as its handler has it. `earlier` makes the
    hardware what an earlier driver made it for such a claim, and `state` is what that driver wrote
    of it. `more` makes a step of the kind for a claim whose config asks for none."""

    config: Sequence[Body] = ()
    more: Callable[[str], AnyStep] | None = None
    spoil: Callable[[ClaimNode], None]
    fail: Callable[[ClaimNode], None]
    can_wait: bool
    earlier: Callable[[ClaimNode], None] = _nothing
    state: Mapping[str, Any] = field(default_factory=dict)


KIND_CASES: Final[Mapping[str, KindCase]] = {
    "cdi": KindCase(spoil=_without_cdi_file, fail=_broken_disk, can_wait=False),
    "time_slice": KindCase(
        config=(a_config_entry(a_config(sharing=time_slicing(interval="Long"))),),
        spoil=_without_effect,
        fail=_broken_gpus,
        can_wait=True,
        earlier=_long_slice,
        state={"timeSliceApplied": True},
    ),
    "node_label": KindCase(
        more=lambda uid: NodeLabelStep(uid, gpu_uuid(0), DOMAIN, "clique"),
        spoil=_nothing,
        fail=_broken_domain,
        can_wait=True,
    ),
    "domain_ready": KindCase(
        more=lambda uid: DomainReadyStep(uid, DOMAIN, "clique"),
        spoil=_nothing,
        fail=_broken_domain,
        can_wait=True,
    ),
    "domain_dir": KindCase(
        more=a_domain_dir, spoil=_without_settings, fail=_broken_domain, can_wait=True
    ),
    "channel_cdi": KindCase(
        more=lambda uid: ChannelCdiStep(uid, "channel-0", 0, 1),
        spoil=_without_domain_file,
        fail=_broken_domain,
        can_wait=False,
    ),
    "daemon_cdi": KindCase(
        more=a_daemon_cdi, spoil=_without_domain_file, fail=_broken_domain, can_wait=False
    ),
}


def cases_of(kinds: Iterable[str]) -> dict[str, KindCase]:
    """:raises LookupError: a kind of step has no case, so nobody knows what a crash does to it."""
    missing = set(kinds) - set(KIND_CASES)
    if missing:
        raise LookupError(f"no crash case for steps of kind {', '.join(sorted(missing))}")
    return {kind: KIND_CASES[kind] for kind in kinds}


class Scene:
    """A node and its claims at one time. `device` is what the claim is allocated, a share of it
    with a `shared` GPU; `load` tells which load of the driver it is."""

    def __init__(
        self,
        root: Path,
        case: KindCase,
        *,
        device: str = "gpu-0",
        shared: bool = False,
        boot: str = BOOT,
        load: str = "first",
    ) -> None:
        self.case = case
        self.boot = boot
        inventory = replace(a_node_of(2), driver_load=load)
        self.node = ClaimNode(root, gates=SHARING_ON, inventory=inventory, more=case.more)
        for ref in (REF, PEER) if shared else (REF,):
            share = {"shareID": f"share of {ref.name}"} if shared else {}
            self.node.api.add(ref, a_result(device, **share), config=case.config)
        self.node.api.add(RIVAL, device)
        for body in self.node.api.claims.values():
            body["status"]["reservedFor"] = [{"resource": "pods", "name": "pod", "uid": "1"}]

    async def agent(self) -> NodeClaims:
        """One that has started on the node, as the program starts it."""
        agent = self.node.agent(boot_id=self.boot, sweep_grace_s=0.0)
        node = EarlierNode(DRIVER, NODE, self.boot)
        await take_over(self.node.root / "state", node=node, observer=self.node.observer)
        await agent.start()
        return agent


async def nothing(scene: Scene) -> None: ...


async def start(scene: Scene) -> None:
    await scene.agent()


async def prepare(scene: Scene) -> None:
    await (await scene.agent()).prepare([REF])


async def prepare_both(scene: Scene) -> None:
    await (await scene.agent()).prepare([PEER])
    await prepare(scene)


async def prepare_peer(scene: Scene) -> None:
    await (await scene.agent()).prepare([PEER])


async def unprepare(scene: Scene) -> None:
    await (await scene.agent()).unprepare([REF])


async def prepared_and_spoiled(scene: Scene) -> None:
    await prepare(scene)
    scene.case.spoil(scene.node)


async def prepared_before_a_boot(scene: Scene) -> None:
    await prepare(scene)
    scene.node.gpus.make(0)


async def prepared_and_damaged(scene: Scene) -> None:
    await prepare(scene)
    path = scene.node.record_path(REF)
    path.write_bytes(path.read_bytes()[:-2])


async def unprepared_in_vain(scene: Scene) -> None:
    await prepare(scene)
    await unprepare_in_vain(scene)


async def unprepare_in_vain(scene: Scene) -> None:
    scene.case.fail(scene.node)
    await unprepare(scene)


async def prepare_in_vain(scene: Scene) -> None:
    """The first step of the kind fails, and cannot be undone."""
    scene.case.fail(scene.node)
    await prepare(scene)


async def roll_back(scene: Scene) -> None:
    """The last step fails, and all can be undone."""

    def refuse(uid: str) -> None:
        raise Retryable("DiskFull", "no CDI file can be written")

    scene.node.cdi.on_write = refuse
    await prepare(scene)


async def verify(scene: Scene) -> None:
    await (await scene.agent()).verify()


async def reconcile(scene: Scene) -> None:
    await (await scene.agent()).reconcile()


async def finish(scene: Scene) -> None:
    await finished(await scene.agent())


async def finished(agent: NodeClaims) -> None:
    """One turn of the undertaker."""
    await agent._keepers.undertaker.look()


async def sweep(scene: Scene) -> None:
    """The claim was deleted while its pod was there."""
    scene.node.api.claims.pop(REF.name)
    await (await scene.agent()).sweep()


async def an_earlier_driver(scene: Scene) -> None:
    """Has prepared the claim, with a CDI file, and is gone."""
    scene.case.earlier(scene.node)
    scene.node.cdi.write(REF.uid, [scene.node.inventory.devices["gpu-0"]])
    group = a_group(a_gpu_device(0, uid=REF.uid), **scene.case.state)
    claim = a_completed(group, config=list(scene.case.config))
    state_dir = scene.node.root / "state"
    state_dir.mkdir(exist_ok=True)
    (state_dir / "checkpoint.json").write_bytes(a_checkpoint({REF.uid: claim}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`run` is what is killed, on a node where `before` has come to its end.

    `now` are the facts of the scene in which it runs, and in which the next agents find it.
    """

    run: Callable[[Scene], Awaitable[None]]
    before: Callable[[Scene], Awaitable[None]] = nothing
    shared: bool = False
    now: Mapping[str, str] = field(default_factory=dict)
    waits: bool = False  # only of kinds that can wait

    @property
    def damages(self) -> bool:
        """Whether a record is to be set aside; killing an agent never damages one."""
        return self.before is prepared_and_damaged

    def scene_before(self, root: Path, case: KindCase) -> Scene:
        return Scene(root, case, shared=self.shared)

    def scene(self, root: Path, case: KindCase) -> Scene:
        return Scene(root, case, shared=self.shared, **self.now)


OPERATIONS: Final[Mapping[str, Mapping[str, Operation]]] = {
    "prepares": {
        "prepare": Operation(run=prepare),
        "prepare again": Operation(before=prepare, run=prepare),
        "mend": Operation(before=prepared_and_spoiled, run=prepare),
        "reallocate": Operation(before=prepare, run=prepare, now={"device": "gpu-1"}),
        "prepare after a boot": Operation(
            before=prepared_before_a_boot, run=prepare, now={"boot": OTHER_BOOT}
        ),
        "join": Operation(before=prepare_peer, run=prepare, shared=True),
        "prepare what is damaged": Operation(before=prepared_and_damaged, run=prepare),
        "prepare what is half done": Operation(before=prepare_in_vain, run=prepare),
        "prepare what is half undone": Operation(before=unprepared_in_vain, run=prepare),
    },
    "undoing": {
        "unprepare": Operation(before=prepare, run=unprepare),
        "leave": Operation(before=prepare_both, run=unprepare, shared=True),
        "unprepare after a boot": Operation(
            before=prepare, run=unprepare, now={"boot": OTHER_BOOT}
        ),
        "unprepare what is damaged": Operation(before=prepared_and_damaged, run=unprepare),
        "roll back": Operation(run=roll_back),
        "prepare in vain": Operation(run=prepare_in_vain),
        "unprepare in vain": Operation(before=prepare, run=unprepare_in_vain),
    },
    "duties": {
        "finish": Operation(before=unprepared_in_vain, run=finish, waits=True),
        "verify": Operation(before=prepared_and_spoiled, run=verify, now={"load": "second"}),
        "reconcile": Operation(before=prepared_and_damaged, run=reconcile),
        "sweep": Operation(before=prepare, run=sweep),
        "take over": Operation(before=an_earlier_driver, run=start),
    },
}
"""By group; a group is killed by one program."""
