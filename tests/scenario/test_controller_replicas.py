"""Replicas of the controller over HTTPS, with Kopf: what each of them writes, against the lease."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from nvdra_kube.access import direct_access
from nvdra_kube.lease_record import utc_stamp
from nvdra_kube.resources import LEASES
from nvdra_operator.gate import WriteGate
from nvdra_operator.kopf_session import kopf_session
from nvdra_operator.resources import COMPUTE_DOMAINS
from nvdra_testing.compute_domains import DomainCluster, a_cluster
from nvdra_testing.lived_time import LivedTime
from nvdra_testing.replicas import LEASE_DURATION_S, Replica, replicas, robbed
from nvdra_testing.tapped_server import TappedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_testing.tapped_server import Arrival

LEASE = "nvidia-compute-domain-controller"
# A server that is busy takes a call late that was sent in time. Others lead 5 s later.
ON_ITS_WAY_S = 2.0


async def the_leader(it: DomainCluster, running: list[Replica]) -> Replica:
    async def leading() -> Replica | None:
        return next((one for one in running if one.leads and one.program.unready() == ""), None)

    found = await it.until(leading)
    assert found
    return found


@asynccontextmanager
async def steady_work(it: DomainCluster) -> AsyncIterator[list[str]]:
    """Domains come and go all the time, so that a late write would be seen. The names of all."""
    names: list[str] = []
    enough = asyncio.Event()

    async def work() -> None:
        while not enough.is_set():
            name = f"d{len(names)}"
            await it.domain(name, template=name)
            names.append(name)
            if len(names) % 3 == 0:
                await it.delete(names[-3])
            with suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await enough.wait()

    # Never broken off: what is made and not named, or should be deleted, would be missed later.
    async with asyncio.TaskGroup() as group:
        group.create_task(work(), name="users")
        try:
            yield names
        finally:
            enough.set()


async def settled(it: DomainCluster, names: list[str]) -> None:
    """Until what was deleted is gone, and the rest is as it should be."""
    for number, name in enumerate(names):
        if number % 3 == 0 and number + 3 <= len(names):
            await it.gone(COMPUTE_DOMAINS, name, namespace="default")
        else:
            await it.condition(reason="NoNodesYet", name=name)


async def other_leads(it: DomainCluster, running: list[Replica], first: Replica) -> Replica:
    return await the_leader(it, [one for one in running if one is not first])


async def at_work(it: DomainCluster, running: list[Replica]) -> None:
    """Until whoever leads by now writes something more: it may find all done at first."""
    before = sum(len(one.work()) for one in running)

    async def wrote() -> bool:
        return sum(len(one.work()) for one in running) > before

    await it.until(wrote)


def nobody_wrote_late(running: list[Replica]) -> None:
    assert [late for one in running for late in one.late(ON_ITS_WAY_S)] == []
    assert robbed(running) == []


def kopf_wrote(running: list[Replica]) -> bool:
    return any("kopf" in write.by for one in running for write in one.work())


@pytest.mark.parametrize(
    ("count", "line", "about"), [(2, "hangs", "leases"), (3, "resets", "leases"), (2, "hangs", "")]
)
async def test_a_leader_that_is_cut_off_writes_nothing_after_its_deadline(
    count: int, line: Any, about: str
) -> None:
    async with a_cluster() as it, replicas(it.store, count) as running:
        first = await the_leader(it, running)
        async with steady_work(it) as names:
            await it.condition(reason="NoNodesYet", name="d1")
            first.line.line, first.line.about = line, about
            await other_leads(it, running, first)
            first.line.line = "good"
            await at_work(it, running)
        await settled(it, names)
        nobody_wrote_late(running)
        assert kopf_wrote(running)


def written_on(arrived: list[Arrival]) -> list[str]:
    """What a leader wrote after it was told that its lease is not its own any more."""
    told_s, found = float("inf"), []
    for one in arrived:
        if one.is_of_lease:
            break  # it leads again
        if one.resource == "leases":
            told_s = min(told_s, one.lived_s)
        elif one.writes and one.lived_s > told_s + ON_ITS_WAY_S:
            found.append(str(one))
    return found


async def test_a_leader_whose_lease_is_stolen_stops_at_its_next_renewal() -> None:
    async with a_cluster() as it, replicas(it.store, 3) as running:
        await the_leader(it, running)
        async with steady_work(it) as names:
            await it.condition(reason="NoNodesYet", name="d1")
            theirs = {"holderIdentity": "thief", "renewTime": utc_stamp()}
            await it.api.patch(LEASES, LEASE, {"spec": theirs}, namespace="default")
            places = [len(one.line.arrived) for one in running]

            async def led_by_nobody() -> bool:
                return not any(one.leads for one in running)

            await it.until(led_by_nobody)
            await the_leader(it, running)
            await at_work(it, running)
        await settled(it, names)
        for one, place in zip(running, places, strict=True):
            assert written_on(one.line.arrived[place:]) == []
        nobody_wrote_late(running)


async def test_clocks_that_differ_by_hours_make_no_second_leader() -> None:
    async with a_cluster() as it, replicas(it.store, 3) as running:
        for number, replica in enumerate(running):
            replica.line.skew_s = (number - 1) * 5 * 3600.0
        first = await the_leader(it, running)
        async with steady_work(it) as names:
            await asyncio.sleep(LEASE_DURATION_S + 1.0)
            nobody_wrote_late(running)
            await first.end()
            await other_leads(it, running, first)
            await at_work(it, running)
        await settled(it, names)
        nobody_wrote_late(running)


async def test_a_leader_that_ends_writes_nothing_after_it_gave_the_lease_back() -> None:
    async with a_cluster() as it, replicas(it.store, 2) as running:
        async with steady_work(it) as names:
            await it.condition(reason="NoNodesYet", name="d1")
            first = await the_leader(it, running)
            await first.end()
            await other_leads(it, running, first)
            await at_work(it, running)
        await settled(it, names)
        last = first.line.writes[-1]
        assert (last.resource, last.body["spec"]["holderIdentity"]) == ("leases", "")
        nobody_wrote_late(running)


async def test_what_kopf_sends_goes_through_the_gate_too() -> None:
    async with (
        a_cluster() as it,
        LivedTime.running() as lived,
        TappedServer(it.store, lived=lived) as line,
    ):
        await it.domain()
        access = await asyncio.to_thread(
            direct_access, line.url, ca_pem=line.ca_pem, token=line.token
        )
        url = f"{line.url}{COMPUTE_DOMAINS.path('job', namespace='default')}"
        patch = {"metadata": {"annotations": {"late": "yes"}}}
        kind = {"Content-Type": "application/merge-patch+json"}
        for gate, arrives in ((WriteGate.always_open(), 1), (WriteGate(lambda: 0.0), 0)):
            line.arrived.clear()
            async with kopf_session(access, gate) as session:
                async with session.get(url) as response:
                    assert response.status == 200
                with nullcontext() if arrives else pytest.raises(aiohttp.ClientConnectionError):
                    await session.patch(url, json=patch, headers=kind)
            assert len(line.writes) == arrives
