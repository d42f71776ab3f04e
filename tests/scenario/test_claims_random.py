"""Random sequences of what happens to claims, against a model of who holds which GPU."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nvdra_kube.errors import ServerError
from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.migration import take_over
from nvdra_nodeagent.durable import is_temporary
from nvdra_nodeagent.hardware.errors import NotFound, ProgramFailed
from nvdra_testing.checkpoints import a_checkpoint, a_completed, a_group, a_vfio_device
from nvdra_testing.claim_world import GPUS, REFS, TWIN, WANTS, Model, Want
from nvdra_testing.claims import BOOT, DRIVER, NODE, ClaimNode, gpu_uuid
from nvdra_testing.configs import SHARING_ON
from nvdra_testing.crash_cases import finished
from nvdra_testing.file_points import Killed, file_points, tree
from nvdra_testing.suspensions import Suspensions

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from nvdra_nodeagent.claims.service import NodeClaims

MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
NAMES: Final = st.sampled_from([*WANTS])
CALLS: Final = st.sampled_from(["prepare", "unprepare"])
WHICH: Final = st.integers(0, 1)


class Claims(RuleBasedStateMachine):
    """One node. There are one or two agents; any of them gets a call."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.model = Model()
        self.node = ClaimNode(Path(self.folder.name), gates=SHARING_ON)
        self.node.gpus.on_call = self._call_of_a_program
        self.agents: list[NodeClaims] = []
        self.boots = 0
        self.hurt: set[str] = set()  # claims whose record or CDI file is lost, never both
        self._see_hardware()
        for name in WANTS:
            self._put_into_api(name)

    @initialize(
        found=st.integers(0, 3),
        twin=st.booleans(),
        names=st.lists(NAMES, min_size=3, max_size=8, unique=True),
    )
    def a_node_with_a_history(self, found: int, *, twin: bool, names: list[str]) -> None:
        """Somebody has set a GPU, another driver may have left a claim, and pods are running."""
        self.node.gpus.make(0, time_slice=found)
        self.model.base[0] = found
        self.node.api.add(REFS[TWIN], "gpu-vfio-2")
        if twin:
            claim = a_completed(a_group(a_vfio_device(2, uid=REFS[TWIN].uid)))
            (self.node.root / "state").mkdir()
            checkpoint = self.node.root / "state" / "checkpoint.json"
            checkpoint.write_bytes(a_checkpoint({REFS[TWIN].uid: claim}))
            self.model.granted[TWIN] = Want(("gpu-vfio-2",))
        self.agents = [self.run(self._started())]
        for name in names:
            self.prepare(name)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    # What the kubelet does.

    def prepare(self, name: str, which: int = 0) -> None:
        ref = REFS[name]
        outcomes = self.run(self._agent(which).prepare([ref]))
        assert set(outcomes) == {ref.uid}
        if isinstance(outcomes[ref.uid], tuple):
            self._check_granted(name, [each.device for each in outcomes[ref.uid]])
        else:
            assert self.model.may_be_refused(name), (name, outcomes[ref.uid])
            if name in self.model.granted or self.model.programs_fail:
                self.model.doubt(name)

    # Often: without claims that are prepared, little can go wrong.
    _often = rule(name=NAMES, which=WHICH)
    prepare_1, prepare_2, prepare_3 = _often(prepare), _often(prepare), _often(prepare)
    prepare_4, prepare_5, prepare_6 = _often(prepare), _often(prepare), _often(prepare)

    def _check_granted(self, name: str, devices: list[str]) -> None:
        want = self.model.wants[name]
        self.model.check_grant(name)
        self.model.grant(name)
        self.hurt.discard(name)
        assert devices == list(want.devices)
        assert set(self.node.cdi.device_names(REFS[name].uid)) == set(devices)
        for gpu in want.sliced:
            assert self.node.gpus.value(gpu).get("time_slice", 0) == want.interval
            self.model.left.discard(gpu)

    @rule(names=st.lists(NAMES, min_size=2, max_size=6, unique=True), which=WHICH)
    def prepare_some(self, names: list[str], which: int) -> None:
        """At once: whoever comes first has it."""
        refs = [REFS[name] for name in names]
        outcomes = self.run(self._agent(which).prepare(refs))
        assert set(outcomes) == {ref.uid for ref in refs}
        for name in names:
            if isinstance(outcomes[REFS[name].uid], tuple):
                self.model.check_grant(name)
                self.model.grant(name)
                self.hurt.discard(name)
            else:
                self.model.doubt(name)

    @rule(name=st.sampled_from([*WANTS, TWIN]), which=WHICH)
    def unprepare(self, name: str, which: int = 0) -> None:
        ref = REFS[name]
        assert self.run(self._agent(which).unprepare([ref])) == {ref.uid: None}
        self.model.end(name)
        self.hurt.discard(name)
        assert not self.node.cdi.exists(ref.uid)
        assert not self.node.record_path(ref).exists()

    @rule(name=NAMES)
    def overtake(self, name: str) -> None:
        async def both() -> Any:
            call = asyncio.create_task(self.agents[-1].prepare([REFS[name]]))
            await asyncio.sleep(0)
            gone = await self.agents[-1].unprepare([REFS[name]])
            return gone, await call

        gone, prepared = self.run(both())
        assert gone == {REFS[name].uid: None}
        assert set(prepared) == {REFS[name].uid}
        self.model.doubt(name)
        self.model.end(name)
        self.hurt.discard(name)

    # What ends work too early.

    @rule(call=CALLS, name=NAMES, at=st.integers(0, 3))
    def cancel(self, call: str, name: str, at: int) -> None:
        """The kubelet's call, or (from 1 on) the work itself; it is repeated at once or later."""
        self._begin(call, name)
        task, at = (f"{call} {REFS[name]}", at) if at else ("caller", 1)
        self.run(self._cancelled(call, name, Suspensions(task, at=at)))

    async def _cancelled(self, call: str, name: str, suspensions: Suspensions) -> None:
        agent = self.agents[-1]
        with suspensions.watched():
            work = getattr(agent, call)([REFS[name]])
            await asyncio.wait([asyncio.create_task(work, name="caller")])
            while agent.oldest_work(now_s=0.0)[0]:
                await asyncio.sleep(0.001)
        assert not [line for line in agent.describe(now_s=0.0) if line.startswith("lock")]

    def kill(self, call: str, name: str, point: int) -> None:
        """The agent dies before one of its system calls on files."""
        self._begin(call, name)
        ref = REFS[name]
        self._killed(lambda agent: getattr(agent, call)([ref]), point)

    kill_early = rule(call=CALLS, name=NAMES, point=st.integers(8, 30))(kill)
    kill_late = rule(call=CALLS, name=NAMES, point=st.integers(20, 80))(kill)

    @rule(duty=st.sampled_from(["sweep", "reconcile", "verify"]), point=st.integers(1, 40))
    def kill_a_duty(self, duty: str, point: int) -> None:
        self._killed(lambda agent: getattr(agent, duty)(), point)

    def _begin(self, call: str, name: str) -> None:
        """Nobody will know how it ended."""
        if call == "unprepare":
            self.model.revoke(name)
            if self.model.programs_fail:
                self._leave_behind(name)
        else:
            self.model.doubt(name)

    def _leave_behind(self, name: str) -> None:
        for want in self.model.unclear.get(name, []):
            self.model.left |= want.sliced

    def _killed(self, work: Any, point: int) -> None:
        def reached(number: int) -> None:
            if number == point:
                raise Killed

        self._end_agents()
        with file_points(reached):
            try:
                self.run(work(self.run(self._started())))
            except* Killed:
                pass
        self._replace_agents()

    @rule()
    def restart(self) -> None:
        self._replace_agents()

    @rule()
    def second_agent(self) -> None:
        """Both live on."""
        del self.agents[:-1]
        self.agents.append(self.run(self._started()))

    # What happens to the node.

    @rule()
    def reboot(self) -> None:
        """All pods are gone, and so is what was set."""
        self.boots += 1
        for name in [*self.model.granted]:
            if name != TWIN:
                self.model.revoke(name)
        self._load_driver()
        self._replace_agents()

    @rule()
    def load_driver(self) -> None:
        """What was set is gone; the agent sees it and sets it again."""
        self._load_driver()
        self.run(self.agents[-1].verify())

    @precondition(lambda self: not self.model.cut)
    @rule()
    def cut(self) -> None:
        """The second GPU into two; whoever holds it keeps it."""
        self.model.cut = True
        self._see_hardware()

    @rule(gpu=st.sampled_from(GPUS))
    def lose_a_gpu(self, gpu: int) -> None:
        self.model.lost |= {gpu}
        self.node.gpus.make(gpu)
        self._see_hardware()

    @precondition(lambda self: self.model.lost)
    @rule()
    def return_gpus(self) -> None:
        self.model.lost = frozenset()
        self._load_driver()
        self.run(self.agents[-1].verify())

    @rule(fail=st.booleans())
    def programs(self, *, fail: bool) -> None:
        self.model.programs_fail = fail

    @rule(name=NAMES)
    def api_fails(self, name: str) -> None:
        self.node.api.errors.append(ServerError("etcd", status=500))
        outcome = self.run(self.agents[-1].prepare([REFS[name]]))[REFS[name].uid]
        assert not isinstance(outcome, tuple)

    @rule(name=st.sampled_from(["long", "third", "share a"]), interval=st.integers(0, 3))
    def change_config(self, name: str, interval: int) -> None:
        self.model.change(name, interval)
        self._put_into_api(name)

    # What happens to the files: never to two of one claim.

    @rule(name=NAMES, size=st.sampled_from([None, -1, 0]))
    def hurt_a_record(self, name: str, size: int | None) -> None:
        path = self.node.record_path(REFS[name])
        if name in self.model.granted and name not in self.hurt and path.exists():
            content = path.read_bytes()
            path.unlink()
            if size is not None:
                path.write_bytes(content[:size])
            self.hurt.add(name)
            self.model.revoke(name)

    @rule(name=NAMES)
    def hurt_a_cdi_file(self, name: str) -> None:
        if name in self.model.granted and name not in self.hurt:
            self.node.cdi.remove(REFS[name].uid)

    @precondition(lambda self: self.model.settled() and not self.model.left)
    @rule(content=st.sampled_from([None, b"", b"{}"]))
    def hurt_the_effects(self, content: bytes | None) -> None:
        """They are rebuilt from the records, as soon as somebody looks."""
        for path in (self.node.root / "state" / "effects").glob("*.json"):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
        self.run(self.agents[-1].verify())

    # What the agent does by itself.

    @rule()
    def sweep(self) -> None:
        assert self.run(self.agents[-1].sweep()).released == []  # all claims exist

    @rule()
    def reconcile(self) -> None:
        self.run(self.agents[-1].reconcile())

    @rule()
    def finish(self) -> None:
        """At the start of an agent nothing is put off for a while."""
        self._replace_agents()
        self.run(finished(self.agents[-1]))
        if not self.model.programs_fail:
            self.model.left.clear()
            assert self._files_in("tombstones") == []

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        """The claim is gone, and nobody calls for it."""
        del self.node.api.claims[REFS[name].name]
        self.run(self.agents[-1].sweep())
        assert not self.node.cdi.exists(REFS[name].uid)
        self.model.end(name)
        self.hurt.discard(name)
        self._put_into_api(name)

    @precondition(lambda self: self.model.settled())
    @rule()
    def look_at_all(self) -> None:
        """At rest, files and hardware are what the journal says."""
        self.finish()
        self.run(self.agents[-1].verify())
        uids = sorted(REFS[name].uid for name in self.model.granted if name != TWIN)
        assert self._files_in("claims") == uids
        assert self._mendable() <= set(self.node.cdi.claim_uids()) <= set(uids)
        for gpu in GPUS:
            value = self.node.gpus.value(gpu)
            assert value.get("time_slice", 0) == self.model.expected_interval(gpu), gpu
        sliced = {gpu for want in self.model.granted.values() for gpu in want.sliced}
        names = sorted(f"time_slice.{gpu_uuid(gpu)}" for gpu in sliced)
        assert self._files_in("effects") == names

    @invariant()
    def no_two_claims_have_one_gpu(self) -> None:
        """By the agents' own books."""
        holders = [*self.model.granted.items()]
        for index, (name, want) in enumerate(holders):
            for other, held in holders[:index]:
                assert not want.excludes(held), (name, other)

    def teardown(self) -> None:
        """Undoing everything leaves the node as it was found."""
        try:
            if self.agents:
                self._undo_everything()
        finally:
            self._end_agents()
            self.runner.close()
            self.folder.cleanup()

    def _undo_everything(self) -> None:
        if self.model.lost:
            self.return_gpus()
        self.model.programs_fail = False
        for name in [*self.model.unclear]:
            self.unprepare(name)
        self.look_at_all()
        for name in (*WANTS, TWIN):
            self.unprepare(name)
        self.finish()
        for path in self.node.root.rglob("*"):
            if is_temporary(path.name):
                os.utime(path, (0, 0))
        self.run(self.agents[-1].sweep())
        left = {name for name in tree(self.node.root) if not name.startswith("gpus/")}
        assert left <= {"state/locks", "state/cp.lock", "state/checkpoint.json.migrated"}
        assert self.run(self.agents[-1].reconcile()).waiting == {}
        for gpu in GPUS:
            value = self.node.gpus.value(gpu)
            assert value.get("time_slice", 0) == self.model.base[gpu], gpu

    # Parts of the above.

    async def _started(self) -> NodeClaims:
        agent = self.node.agent(boot_id=f"{BOOT}-{self.boots}", sweep_grace_s=0.0)
        node = EarlierNode(DRIVER, NODE, f"{BOOT}-{self.boots}")
        state = self.node.root / "state"
        await take_over(state, node=node, observer=self.node.observer)
        await agent.start()
        return agent

    def _agent(self, which: int) -> NodeClaims:
        return self.agents[min(which, len(self.agents) - 1)]

    def _replace_agents(self) -> None:
        self._end_agents()
        self.agents = [self.run(self._started())]

    def _end_agents(self) -> None:
        self.run(self.node.close())
        self.node.agents.clear()

    def _put_into_api(self, name: str) -> None:
        want = self.model.wants[name]
        self.node.api.add(REFS[name], *want.results(name), config=want.config())
        self.node.api.claims[REFS[name].name]["status"]["reservedFor"] = [{"name": "pod"}]

    def _see_hardware(self) -> None:
        self.node.inventory = self.model.inventory()

    def _load_driver(self) -> None:
        self.model.forget_settings()
        for gpu in GPUS:
            self.node.gpus.make(gpu)
        self._see_hardware()

    def _call_of_a_program(self, verb: str, uuid: str) -> None:
        if any(uuid == gpu_uuid(gpu) for gpu in self.model.lost):
            raise NotFound("`nvidia-smi`", code=6, reason="No devices were found")
        if self.model.programs_fail:
            raise ProgramFailed("`nvidia-smi`", outcome="ended with status 255", output="")

    def _mendable(self) -> set[str]:
        """The claims whose CDI files can be written anew: their devices are there."""
        there = set(self.model.inventory().devices)
        return {REFS[n].uid for n, want in self.model.granted.items() if there >= {*want.devices}}

    def _files_in(self, directory: str) -> list[str]:
        return sorted(path.stem for path in (self.node.root / "state" / directory).glob("*.json"))


TestClaims = pytest.mark.timeout(300)(Claims.TestCase)
TestClaims.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
