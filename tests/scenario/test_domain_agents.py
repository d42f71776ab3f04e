"""Agents of ComputeDomains as processes: two in an update, and killed at the node's patch."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from grpclib.exceptions import GRPCError, StreamTerminatedError

from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_testing.domain_claims import GB200_CLIQUE, a_made_domain
from nvdra_testing.domain_processes import domain_processes
from nvdra_testing.rolling import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_testing.compute_domains import DomainCluster
    from nvdra_testing.domain_processes import DomainProcesses

# A dozen processes on a busy machine: slow, and no sign of anything wrong.
pytestmark = pytest.mark.timeout(300)

OLD, NEW = "old", "new"  # short: socket paths may have 107 bytes


@pytest.fixture
async def them(it: DomainCluster, tmp_path: Path) -> AsyncIterator[DomainProcesses]:
    async with domain_processes(tmp_path, it) as made:
        yield made


def count_patches(it: DomainCluster, resource: str = "nodes") -> Fault:
    """How often it `struck`."""
    return it.store.faults.add(Fault(verb="patch", resource=resource, subresource=""))


async def until_in(them: DomainProcesses, uid: str) -> None:
    async def joined() -> bool:
        return await them.node.label() == uid

    await them.node.it.until(joined)


@pytest.mark.parametrize("by", [OLD, NEW])
async def test_a_workload_that_waits_at_the_older_agent_is_released_whoever_gets_its_daemon(
    them: DomainProcesses, by: str
) -> None:
    node, it = them.node, them.node.it
    uid, patches = await a_made_domain(it), count_patches(it)
    async with them.agent(OLD):
        workload = await node.channel(uid)
        waiting = asyncio.create_task(them.prepared_at_last(workload, by=OLD))
        await until_in(them, uid)
        async with them.agent(NEW) as new:
            await them.wait_in_charge(new)
            pod = await it.daemon(node.name, uid, ip="10.0.0.1")
            daemon = await node.daemon(uid, pod=pod)
            assert await them.prepare(daemon, by=by) == ""
            await until(lambda: node.peers(uid).get("ownIndex") == 0)
            node.say(uid)
            await waiting
            assert await them.prepare(workload, by=NEW) == ""
            assert patches.struck == 1
            assert await them.unprepare(workload, by=NEW) == ""
            assert await them.unprepare(daemon, by=OLD) == ""
            assert (await node.label(), patches.struck) == (None, 2)
    assert not node.directory(uid).exists()
    assert them.records() == []


async def test_daemons_are_told_of_their_peers_by_the_agent_that_takes_over(
    them: DomainProcesses,
) -> None:
    node, it = them.node, them.node.it
    uid = await a_made_domain(it)
    await it.join(node.name, uid, clique=GB200_CLIQUE)
    async with them.agent(OLD) as old:
        pod = await it.daemon(node.name, uid, ip="10.0.0.1")
        assert await them.prepare(await node.daemon(uid, pod=pod), by=OLD) == ""
        await until(lambda: node.peers(uid).get("ownIndex") == 0)
        async with them.agent(NEW) as new:
            await them.wait_in_charge(new)
            await old.stop()
            await it.join("node-2", uid, clique=GB200_CLIQUE)
            await it.daemon("node-2", uid, ip="10.0.0.2")
            await until(lambda: len(node.peers(uid).get("peers", ())) == 2)
            await until(lambda: "peers written" in new.log())  # said after it was done


async def test_the_clique_label_stays_when_the_role_changes_hands(them: DomainProcesses) -> None:
    patches, flag = count_patches(them.node.it), "--gpu-clique-label-enabled=true"
    async with them.agent(OLD, flag) as old:
        await until(lambda: patches.struck == 1)
        async with them.agent(NEW, flag) as new:
            await them.wait_in_charge(new)
            await old.stop()
            assert patches.struck == 1
    assert patches.struck == 2  # taken off by the last one


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("verb", ["prepare", "unprepare"])
async def test_killed_at_the_patch_of_the_node_the_next_agent_finishes_the_work(
    it: DomainCluster, tmp_path: Path, verb: str, after: bool
) -> None:
    async with domain_processes(tmp_path, it, profile="h100") as them:  # without a daemon
        uid = await a_made_domain(it)
        ref = await them.node.channel(uid)
        async with them.agent() as agent:
            if verb == "unprepare":
                assert await them.prepare(ref) == ""
            hanging = Fault(verb="patch", resource="nodes", hang=True, after=after, count=1)
            it.store.faults.add(hanging)
            call = asyncio.create_task(getattr(them, verb)(ref))
            await until(lambda: hanging.struck)
            await agent.kill()
            with contextlib.suppress(GRPCError, StreamTerminatedError, OSError):
                await call
        async with them.agent():
            if verb == "prepare":
                assert await them.prepare(ref) == ""
                assert await them.node.label() == uid
            assert await them.unprepare(ref) == ""
            assert await them.node.label() is None
            assert them.records() == []
