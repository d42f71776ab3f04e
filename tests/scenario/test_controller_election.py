"""Replicas of the controller: one works, and none writes when it does not lead."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nvdra_kube.errors import Unreachable
from nvdra_kube.lease import Elector, Role
from nvdra_kube.resources import LEASES
from nvdra_operator.gate import GatedApi, NotLeading, WriteGate
from nvdra_operator.lifecycle import MirrorLifecycle
from nvdra_operator.metrics import ControllerMetrics
from nvdra_operator.options import parse_options
from nvdra_operator.program import Program
from nvdra_operator.resources import COMPUTE_DOMAINS
from nvdra_testing.compute_domains import DomainCluster, a_cluster
from nvdra_testing.election import Wire, now_s
from nvdra_testing.recorded_api import RecordedApi, Write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# A machine that stalls for longer than a lease would make leaders of others.
pytestmark = pytest.mark.looptime


@dataclass
class Replica:
    """A program with lines of its own to the server; `early` and `late` are writes that it made
    while it did not lead."""

    name: str
    program: Program
    api: RecordedApi
    wire: Wire
    stop: asyncio.Event
    task: asyncio.Task[None]
    improper: list[str]

    @property
    def leads(self) -> bool:
        return self.elector.role is Role.LEADER

    @property
    def elector(self) -> Elector:
        assert self.program.elector
        return self.program.elector

    async def end(self) -> None:
        self.stop.set()
        await asyncio.gather(self.task, return_exceptions=True)


def a_replica(it: DomainCluster, name: str) -> Replica:
    options = parse_options(
        [
            "--leader-election-enabled=true",
            "--leader-election-lease-duration=3s",
            "--leader-election-renew-deadline=1s",
            "--leader-election-retry-period=100ms",
            "--leader-election-lease-lock-name=controller",
            f"--pod-name={name}",
            "--image-name=nvdra:test",
            "--log-verbosity-cd-daemon=4",
            "--namespace=dra-driver-nvidia-gpu",
        ],
        environ={},
        version="test",
    )
    improper: list[str] = []

    def watch_over(write: Write) -> None:
        elector = program.elector
        assert elector
        if write.at_s > elector.deadline_s or elector.holder != elector.identity:
            improper.append(str(write))

    api = RecordedApi(it.api, on_write=watch_over)
    wire = Wire(it.api)
    program = Program(
        options,
        api=api,
        lease_api=wire,
        metrics=ControllerMetrics(),
        lifecycle=lambda mirror, domains, _: MirrorLifecycle(mirror, domains),
        overrun=lambda: improper.append("overrun"),
        clock=now_s,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(program.run(stop), name=name)
    return Replica(name, program, api, wire, stop, task, improper)


@asynccontextmanager
async def replicas(it: DomainCluster, count: int) -> AsyncIterator[list[Replica]]:
    running = [a_replica(it, f"controller-{number}") for number in range(count)]
    try:
        yield running
    finally:
        for replica in running:
            replica.wire.line = "good"
            await replica.end()
        assert [replica.improper for replica in running] == [[]] * count


async def the_leader(it: DomainCluster, running: list[Replica]) -> Replica:
    async def leading() -> Replica | None:
        return next((replica for replica in running if replica.leads), None)

    found = await it.until(leading)
    assert found
    return found


async def test_of_three_replicas_one_makes_the_domain() -> None:
    async with a_cluster() as it, replicas(it, 3) as running:
        leader = await the_leader(it, running)
        await it.domain()
        await it.condition(reason="NoNodesYet")
        await asyncio.sleep(0.3)
        assert [replica.name for replica in running if replica.api.writes] == [leader.name]


async def test_a_leader_that_ends_hands_over_at_once() -> None:
    async with a_cluster() as it, replicas(it, 2) as running:
        first = await the_leader(it, running)
        await it.domain("one", template="one")
        await it.condition(reason="NoNodesYet", name="one")
        await first.end()
        ended_s = now_s()
        lease = await it.api.get(LEASES, "controller", namespace="default")
        assert lease["spec"]["holderIdentity"] != first.elector.identity
        await the_leader(it, running)
        assert now_s() - ended_s < 1.0
        await it.domain("two", template="two")
        await it.condition(reason="NoNodesYet", name="two")
        await it.delete("one")
        await it.gone(COMPUTE_DOMAINS, "one", namespace="default")


@pytest.mark.parametrize("line", ["hangs", "refuses"])
async def test_a_leader_that_cannot_renew_stops_writing_before_another_starts(line: str) -> None:
    async with a_cluster() as it, replicas(it, 2) as running:
        first = await the_leader(it, running)
        first.wire.line = line  # type: ignore[assignment]
        number = 0
        while not any(replica.leads for replica in running if replica is not first):
            # Work for both, all the time, so that a late write would be seen.
            await it.domain(f"d{number}", template=f"t{number}")
            number += 1
            await asyncio.sleep(0.1)
        await it.condition(reason="NoNodesYet", name=f"d{number - 1}")
        second = next(replica for replica in running if replica is not first)
        assert first.api.writes[-1].at_s < second.api.writes[0].at_s


async def test_a_replica_that_stands_by_is_healthy_and_ready_and_counts_nothing() -> None:
    async with a_cluster() as it, replicas(it, 2) as running:
        leader = await the_leader(it, running)
        await it.domain()
        await it.condition(reason="NoNodesYet")
        other = next(replica for replica in running if replica is not leader)
        for replica in running:
            assert (replica.program.unhealthy(), replica.program.unready()) == ("", "")
        assert other.program._metrics.domains is None
        counts = leader.program._metrics.domains
        assert counts is not None

        async def counted() -> bool:
            return counts.counts() == {"Ready": 1, "NotReady": 0}

        await it.until(counted)


async def test_no_write_begins_after_the_deadline() -> None:
    clock_s = 0.0
    gate = WriteGate(lambda: 10.0, clock=lambda: clock_s)
    async with a_cluster() as it:
        api = GatedApi(it.api, gate)
        await api.create(COMPUTE_DOMAINS, _a_body("a"), namespace="default")
        clock_s = 10.0
        for call in (
            api.create(COMPUTE_DOMAINS, _a_body("b"), namespace="default"),
            api.patch(COMPUTE_DOMAINS, "a", {"metadata": {}}, namespace="default"),
            api.delete(COMPUTE_DOMAINS, "a", namespace="default"),
            api.update(COMPUTE_DOMAINS, _a_body("a")),
        ):
            with pytest.raises(NotLeading):
                await call
        assert gate.refused == 4
        assert (await it.look("a"))["metadata"]["name"] == "a"


async def test_a_write_under_way_is_broken_off_at_the_deadline() -> None:
    deadline_s = now_s() + 0.05
    ended = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(NotLeading, match="broken off"):
        await WriteGate(lambda: deadline_s, clock=now_s).guard("a write", hangs)
    assert ended.is_set()


async def test_a_timer_that_rings_a_trace_early_does_not_make_a_write_spin() -> None:
    # The loop wakes what is due within a nanosecond, and no time passes in between.
    deadline_s = now_s() + 0.05 + 5e-10
    with pytest.raises(NotLeading, match="broken off"):
        await WriteGate(lambda: deadline_s, clock=now_s).guard("a write", asyncio.Event().wait)


async def test_a_write_that_outlasts_the_deadline_it_began_with_goes_on_if_that_moved() -> None:
    deadlines_s = [now_s() + 0.02]
    late = asyncio.Event()

    async def write() -> str:
        deadlines_s.append(now_s() + 60)
        await late.wait()
        return "written"

    asyncio.get_running_loop().call_later(0.1, late.set)
    gate = WriteGate(lambda: deadlines_s[-1], clock=now_s)
    assert await gate.guard("a write", write) == "written"


async def test_a_write_ends_with_the_task_that_waits_for_it() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    gate = WriteGate(lambda: 60.0, clock=lambda: 0.0)
    waiting = asyncio.create_task(gate.guard("a write", hangs))
    await begun.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert ended.is_set()


async def test_errors_of_a_write_come_through_the_gate() -> None:
    async def fails() -> None:
        raise Unreachable("no server")

    with pytest.raises(Unreachable):
        await WriteGate.always_open().guard("a write", fails)


def _a_body(name: str) -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"channel": {"resourceClaimTemplate": {"name": name}}},
    }
