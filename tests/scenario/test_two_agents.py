"""Two agents on one node, as in a rolling update: real processes, the embedded cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_testing.rolling import a_rolling_node, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_testing.rolling import RollingNode

# Dozens of processes on a busy machine: slow, and no sign of anything wrong.
pytestmark = pytest.mark.timeout(400)

OLD, NEW = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[RollingNode]:
    async with a_rolling_node(tmp_path) as node:
        yield node


async def test_an_update_under_load_fails_no_claim_and_writes_no_slice(node: RollingNode) -> None:
    async with node.agent(OLD) as old:
        await node.wait_devices(8)
        async with node.churning() as churn:
            await churn.more(3)
            node.writes.clear()
            async with node.agent(NEW) as new:
                await node.wait_in_charge(new)
                await churn.more(3)
                await old.stop()
                await churn.more(6)
                await until(lambda: node.calls_go_to() == f"dra-{NEW}.sock")
                await churn.end()
                await node.wait_no_claims()
        assert set(churn.phases) == {"Succeeded"}
        assert await node.warnings() == []
        assert node.writes == []
        assert node.leftovers() == []
        assert len(await node.devices()) == 8


async def test_a_prepare_in_flight_when_its_agent_is_told_to_stop_is_answered(
    node: RollingNode,
) -> None:
    async with node.agent(OLD) as old:
        await node.wait_devices(8)
        slow = Fault(verb="get", resource="resourceclaims", latency_s=1.0)
        node.cluster.store.faults.add(slow)
        pod = asyncio.create_task(node.pod("slow", "sleep 1"))
        await until(lambda: slow.struck >= 2)  # the kubelet has looked, and now the agent does
        stop = asyncio.create_task(old.stop())
        async with node.agent(NEW):
            assert await pod == "Succeeded"
            await stop
            await node.wait_no_claims()
    # Until the new one is there, the pod's end has to wait; its start has not.
    assert [text for text in await node.warnings() if not text.startswith("unprepare")] == []


async def test_an_update_from_fixed_names_fails_no_claim_either(node: RollingNode) -> None:
    async with node.agent("fixed", rolling=False) as old, node.churning(2) as churn:
        await churn.more(2)
        async with node.agent(NEW):
            await old.stop()
            await churn.more(4)
            await churn.end()
    assert set(churn.phases) == {"Succeeded"}
    assert await node.warnings() == []


@pytest.mark.parametrize("killed", ["older", "newer"])
async def test_when_one_is_killed_the_other_serves_and_publishes(
    node: RollingNode, killed: str
) -> None:
    async with node.agent(OLD) as old, node.agent(NEW) as new:
        await node.wait_in_charge(new)
        victim, other = (old, new) if killed == "older" else (new, old)
        await victim.kill()
        await node.wait_in_charge(other)
        await until(lambda: node.calls_go_to() == f"dra-{other.pod_uid}.sock")
        assert await node.pod("after") == "Succeeded"
        registry = node.node.directories.registry
        await until(lambda: len(list(registry.iterdir())) == 1 or killed == "older")
        assert len(await node.devices()) == 8


async def test_after_both_were_killed_a_third_finds_everything(node: RollingNode) -> None:
    async with node.agent(OLD) as old, node.agent(NEW) as new:
        await node.wait_in_charge(new)
        assert await node.pod("before") == "Succeeded"
        await old.kill()
        await new.kill()
    async with node.agent("third") as third:
        await node.wait_in_charge(third)
        assert await node.pod("after") == "Succeeded"
        sockets = node.node.directories.registry
        await until(lambda: len(list(sockets.iterdir())) == 1)
        await node.wait_no_claims()
        assert node.leftovers() == []


async def test_two_plans_are_written_once_and_the_newest_stays(
    node: RollingNode, tmp_path: Path
) -> None:
    other_machine = ("--simulate-state", str(tmp_path / "other"))
    async with node.agent(OLD) as old:
        await node.wait_devices(8)
        node.writes.clear()
        async with node.agent(NEW, *other_machine, profile="t4") as new:
            await node.wait_in_charge(new)
            await node.wait_devices(4)
            assert await node.pod("while-both-are-there", "sleep 1") == "Succeeded"
            assert len(node.writes) <= 4
            assert len(await node.devices()) == 4
            assert old.log().count("taking charge") == 1
