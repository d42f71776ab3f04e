"""Workloads that wait for the daemon on their node: what they are told, and what ends it."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_nodeagent.durable import write_durably
from nvdra_nodeagent.errors import AgentError
from nvdra_testing.agent import until
from nvdra_testing.domain_claims import (
    GB200_CLIQUE,
    OTHER_BOOT,
    a_daemon,
    a_made_domain,
    a_released_workload,
    a_waiting_workload,
    permanent,
    prepare,
    refused,
)

if TYPE_CHECKING:
    from nvdra_nodeagent.computedomain.agent import DomainAgent
    from nvdra_testing.domain_nodes import DomainNode


def say_of_domain(node: DomainNode, uid: str, state: str, *others: dict[str, Any]) -> None:
    """What the daemon writes of all nodes; it is itself the one with index 0."""
    settings = node.settings(uid)
    own = {"index": 0, "host": "", "state": "READY", "connection": "CONNECTED"}
    said = {
        "version": 1,
        "claimUID": settings["claimUID"],
        "bootID": settings["bootID"],
        "state": state,
        "nodes": [own, *others],
    }
    write_durably(node.directory(uid) / "domain.json", json.dumps(said).encode())


def sample(agent: DomainAgent, name: str, **labels: str) -> float | None:
    return agent._metrics.registry.get_sample_value(f"nvidia_dra_compute_domain_{name}", labels)


async def test_the_last_cause_is_answered_when_the_daemon_does_not_come(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running(retry_budget_s=0.3) as agent:
        ref = await node.channel(uid)
        outcome = await refused(agent, ref)
        assert (outcome.reason, "has not been started" in str(outcome)) == ("DomainNotReady", True)
        assert await node.label() == uid  # or the daemon would never come
        await agent.claims.unprepare([ref])
        assert await node.label() is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"claimUID": "another"}, "an earlier daemon"),
        ({"bootID": OTHER_BOOT}, "an earlier daemon"),
        ({"ready": "true"}, "Ready"),
        ({"ready": False, "reason": "ImexStarting"}, "ImexStarting"),
    ],
)
async def test_words_of_another_daemon_count_for_nothing(
    node: DomainNode, changes: dict[str, object], said: str
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running(retry_budget_s=0.3) as agent:
        await a_daemon(agent, node, uid)
        node.say(uid, **changes)  # type: ignore[arg-type]
        assert said in str(await refused(agent, await node.channel(uid)))


async def test_after_a_reboot_the_old_word_of_the_daemon_counts_for_nothing(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        ref, daemon = await a_released_workload(agent, node, uid)
    writes = [write for write in node.it.recorded.writes if write.resource == "nodes"]
    async with node.running(boot_id=OTHER_BOOT, retry_budget_s=0.3) as agent:
        await refused(agent, ref)
        assert not isinstance(await prepare(agent, daemon), AgentError)
        assert "not reported yet" in str(await refused(agent, ref))
        node.say(uid)
        assert not isinstance(await prepare(agent, ref), AgentError)
        # The node stays in the domain meanwhile: nobody takes its daemon away.
        assert writes == [write for write in node.it.recorded.writes if write.resource == "nodes"]


async def test_the_peer_that_is_down_is_named_with_what_it_is(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running(retry_budget_s=0.3) as agent:
        await node.it.join(node.name, uid, clique=GB200_CLIQUE)
        await a_daemon(agent, node, uid)
        await until(lambda: node.peers(uid).get("ownIndex") == 0)
        await node.it.join("node-2", uid, clique=GB200_CLIQUE)
        await node.it.daemon("node-2", uid, ip="10.0.0.2")
        await until(lambda: len(node.peers(uid)["peers"]) == 2)
        node.say(uid, ready=False, reason="ImexNotReady", detail="nvidia-imex is INITIALIZING")
        lost = {"index": 1, "host": "", "state": "UNAVAILABLE", "connection": "DISCONNECTED"}
        say_of_domain(node, uid, "DEGRADED", lost)
        text = str(await refused(agent, await node.channel(uid)))
    assert "ImexNotReady: nvidia-imex is INITIALIZING; of its peers, node-2 is UNAVAILABLE" in text


async def test_nothing_is_locked_while_a_workload_waits(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        ref, waiting = await a_waiting_workload(agent, node, uid)
        await until(lambda: agent.claims._patience.last_failure(ref.uid))
        await until(lambda: not agent.claims._place.locks.describe())
        assert await agent.claims.unprepare([ref]) == {ref.uid: None}  # does not wait for it
        assert isinstance(await waiting, AgentError)
        assert await node.label() is None


async def test_a_domain_that_goes_while_a_workload_waits_ends_the_waiting(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        _, waiting = await a_waiting_workload(agent, node, uid)
        await node.it.delete()
        text = str(await waiting)
    assert "is being deleted" in text or "there is no ComputeDomain" in text


async def test_a_domain_that_is_being_deleted_takes_no_workload(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        ref, _ = await a_released_workload(agent, node, uid)
        await node.it.delete()
        await agent.claims.unprepare([ref])
        text = await permanent(agent, await node.channel(uid, "late"))
    assert "is being deleted" in text or "there is no ComputeDomain" in text


async def test_how_long_workloads_waited_is_counted_by_how_it_ended(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        assert sample(agent, "readiness_wait_seconds_count", outcome="ready") == 0
        ref, _ = await a_released_workload(agent, node, uid)
        assert sample(agent, "readiness_wait_seconds_count", outcome="ready") == 1
        await agent.claims.unprepare([ref])
        assert sample(agent, "readiness_wait_seconds_count", outcome="given_up") == 0
    async with node.running(retry_budget_s=0.3) as agent:
        node.say(uid, ready=False)
        second = await node.channel(uid, "second")
        await refused(agent, second)
        await agent.claims.unprepare([second])
        assert sample(agent, "readiness_wait_seconds_count", outcome="given_up") == 1


async def test_metrics_tell_what_the_daemon_says_of_the_domain_while_it_is_there(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        _, daemon = await a_released_workload(agent, node, uid)
        lost = {"index": 1, "host": "", "state": "READY", "connection": "DISCONNECTED"}
        say_of_domain(node, uid, "DEGRADED", lost)
        await until(lambda: sample(agent, "imex_domain_state", domain=uid, state="DEGRADED") == 1)
        assert sample(agent, "imex_domain_state", domain=uid, state="UP") == 0
        assert sample(agent, "imex_nodes", domain=uid, which="all") == 2
        assert sample(agent, "imex_nodes", domain=uid, which="connected") == 1
        assert sample(agent, "daemon_ready", domain=uid) == 1
        await agent.claims.unprepare([daemon])
        await until(lambda: sample(agent, "daemon_ready", domain=uid) is None)


async def test_what_a_daemon_puts_in_place_of_its_files_hangs_nobody(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running(retry_budget_s=0.3) as agent:
        await a_daemon(agent, node, uid)
        os.mkfifo(node.directory(uid) / "ready.json")
        (node.directory(uid) / "domain.json").symlink_to(node.directory(uid) / "settings.json")
        assert "not reported yet" in str(await refused(agent, await node.channel(uid)))
        words = agent.directories.words(uid, claim_uid=node.settings(uid)["claimUID"])
        assert not words.domain


async def test_where_the_kernel_tells_nothing_the_daemon_is_seen_all_the_same(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        await a_daemon(agent, node, uid)
        _, waiting = await a_waiting_workload(agent, node, uid)
        asyncio.get_running_loop().remove_reader(agent.news._announcer._descriptor)
        node.say(uid)
        assert not isinstance(await waiting, AgentError)
