"""Replicas of the controller over HTTPS, with Kopf: what each of them writes, against the lease."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
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
from nvdra_testing.replicas import Replica, replicas
from nvdra_testing.tapped_server import TappedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(180)
LEASE = "nvidia-compute-domain-controller"
# A server that is busy takes a call late that was sent in time. Others lead 2 s later.
ON_ITS_WAY_S = 1.0


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

    async def work() -> None:
        while True:
            name = f"d{len(names)}"
            await it.domain(name, template=name)
            names.append(name)
            if len(names) % 3 == 0:
                await it.delete(names[-3])
            await asyncio.sleep(0.3)

    working = asyncio.create_task(work(), name="users")
    try:
        yield names
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def settled(it: DomainCluster, names: list[str]) -> None:
    """Until what was deleted is gone, and the rest is as it should be."""
    for number, name in enumerate(names):
        if number % 3 == 0 and number + 3 <= len(names):
            await it.gone(COMPUTE_DOMAINS, name, namespace="default")
        else:
            await it.condition(reason="NoNodesYet", name=name)


async def other_leads(it: DomainCluster, running: list[Replica], first: Replica) -> Replica:
    return await the_leader(it, [one for one in running if one is not first])


async def at_work(it: DomainCluster, leader: Replica) -> None:
    """Until it writes something more: it may find all done at first."""
    before = len(leader.work())

    async def wrote() -> bool:
        return len(leader.work()) > before

    await it.until(wrote)


def nobody_wrote_late(running: list[Replica]) -> None:
    assert [late for one in running for late in one.late(ON_ITS_WAY_S)] == []


def kopf_wrote(replica: Replica) -> bool:
    return any("kopf" in one.by for one in replica.work())


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
            second = await other_leads(it, running, first)
            first.line.line = "good"
            await at_work(it, second)
        await settled(it, names)
        nobody_wrote_late(running)
        assert kopf_wrote(first)


async def test_a_leader_whose_lease_is_stolen_stops_at_its_next_renewal() -> None:
    async with a_cluster() as it, replicas(it.store, 3) as running:
        await the_leader(it, running)
        async with steady_work(it) as names:
            await it.condition(reason="NoNodesYet", name="d1")
            stolen_s = asyncio.get_running_loop().time()
            theirs = {"holderIdentity": "thief", "renewTime": utc_stamp()}
            await it.api.patch(LEASES, LEASE, {"spec": theirs}, namespace="default")

            async def led_by_nobody() -> bool:
                return not any(one.leads for one in running)

            await it.until(led_by_nobody)
            second = await the_leader(it, running)
            began_s = asyncio.get_running_loop().time()
            await at_work(it, second)
        await settled(it, names)
        between = [
            str(write)
            for one in running
            for write in one.work()
            if stolen_s + ON_ITS_WAY_S < write.at_s < began_s - ON_ITS_WAY_S
        ]
        assert between == []
        nobody_wrote_late(running)


async def test_clocks_that_differ_by_hours_make_no_second_leader() -> None:
    async with a_cluster() as it, replicas(it.store, 3) as running:
        for number, replica in enumerate(running):
            replica.line.skew_s = (number - 1) * 5 * 3600.0
        first = await the_leader(it, running)
        async with steady_work(it) as names:
            # Longer than a lease lasts.
            await asyncio.sleep(7.0)
            assert [one.name for one in running if one.work()] == [first.name]
            await first.end()
            second = await other_leads(it, running, first)
            await at_work(it, second)
        await settled(it, names)
        assert second.work()[0].at_s > first.work()[-1].at_s
        nobody_wrote_late(running)


async def test_a_leader_that_ends_writes_nothing_after_it_gave_the_lease_back() -> None:
    async with a_cluster() as it, replicas(it.store, 2) as running:
        first = await the_leader(it, running)
        async with steady_work(it) as names:
            await it.condition(reason="NoNodesYet", name="d1")
            await first.end()
            await at_work(it, await other_leads(it, running, first))
        await settled(it, names)
        last = first.line.writes[-1]
        assert (last.resource, last.body["spec"]["holderIdentity"]) == ("leases", "")
        nobody_wrote_late(running)


async def test_what_kopf_sends_goes_through_the_gate_too() -> None:
    async with a_cluster() as it, TappedServer(it.store) as line:
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
