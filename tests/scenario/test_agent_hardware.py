"""Hardware and drivers that change under a running agent and its claims."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_kube.resources import RESOURCE_SLICES
from nvdra_sim.cluster.apiserver import Fault
from nvdra_testing.agent import SETTLE_S, a_node, until

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_testing.agent import NodeUnderTest

# Several changes each, which the agent notices after seconds: more on a busy machine.
pytestmark = pytest.mark.timeout(240)

NEWER = "599.1.2"
LOST = [{"key": "gpu.nvidia.com/gpu-lost", "effect": "NoSchedule"}]


async def taints(node: NodeUnderTest) -> dict[str, Any]:
    """Published devices with their taints, without the time that the server adds."""
    slices = (await node.api.list(RESOURCE_SLICES))["items"]
    return {
        device["name"]: [
            {name: value for name, value in taint.items() if name != "timeAdded"}
            for taint in device.get("taints", [])
        ]
        for body in slices
        for device in body["spec"].get("devices", ())
    }


async def published(node: NodeUnderTest, *, minors: set[int]) -> None:
    names = {f"gpu-{minor}" for minor in minors}
    async with asyncio.timeout(SETTLE_S):
        while set(await node.devices()) != names:
            await asyncio.sleep(0.01)


def a_cdi_file(node: NodeUnderTest) -> Path:
    (path,) = node.cdi_root.glob("*.yaml")
    return path


async def changed(path: Path, before: bytes) -> bytes:
    await until(lambda: path.read_bytes() != before)
    return path.read_bytes()


async def test_slices_follow_a_gpu_that_goes_and_comes(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.running():
        await published(node, minors=set(range(8)))
        node.hardware.remove(4)
        await published(node, minors=set(range(8)) - {4})
        node.hardware.insert(4)
        await published(node, minors=set(range(8)))


async def test_slices_follow_a_mig_layout(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        node.hardware.set_mig_mode(0, enabled=True)
        node.hardware.create_mig(0, "3g.40gb", start=0)
        async with asyncio.timeout(SETTLE_S):
            while "gpu-0-mig-3g40gb-9-0" not in await node.devices():
                await asyncio.sleep(0.01)
        assert "gpu-0" not in await node.devices()


async def test_a_driver_may_come_after_the_agent(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    node.hardware.driver.unload()
    node.hardware.driver.uninstall()
    async with node.publishing() as agent:
        assert await node.devices() == []
        assert agent.keeper.current.defects
        node.hardware.driver.install(NEWER)
        node.hardware.driver.load()
        await published(node, minors=set(range(8)))
        ref = await node.claim("gpu-0")
        assert (await node.prepare(ref))["claim"].error == ""
        assert NEWER in a_cdi_file(node).read_text()


async def test_a_held_gpu_that_is_lost_stays_with_a_taint_until_its_claim_is_gone(
    tmp_path: Path,
) -> None:
    node = await a_node(tmp_path)
    remaining = {f"gpu-{minor}": LOST if minor == 2 else [] for minor in range(8) if minor != 5}
    async with node.publishing():
        ref = await node.prepared("gpu-2")
        node.hardware.remove(2)
        node.hardware.remove(5)
        async with asyncio.timeout(SETTLE_S):
            while await taints(node) != remaining:
                await asyncio.sleep(0.01)
        assert (await node.unprepare(ref))["claim"].error == ""
        await published(node, minors=set(range(8)) - {2, 5})
    assert list(node.cdi_root.iterdir()) == []


async def test_a_lost_gpu_that_is_back_has_no_taint(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        await node.prepared("gpu-2")
        node.hardware.lose(2)
        async with asyncio.timeout(SETTLE_S):
            while (await taints(node)).get("gpu-2") != LOST:
                await asyncio.sleep(0.01)
            node.hardware.heal()
            while (await taints(node)).get("gpu-2") != []:
                await asyncio.sleep(0.01)


async def test_an_agent_that_starts_after_the_loss_publishes_the_held_gpu(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing() as agent:
        ref = await node.prepared("gpu-2")
    node.hardware.remove(2)
    async with node.running() as agent:
        await until(lambda: agent.keeper.is_known)
        await agent.publisher.wait_published()
        assert (await taints(node))["gpu-2"] == LOST
        assert (await node.unprepare(ref))["claim"].error == ""
        await published(node, minors=set(range(8)) - {2})


async def test_a_server_that_drops_taints_sees_no_device_that_is_not_there(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    fault = Fault(resource=RESOURCE_SLICES.plural, drop_fields=("spec.devices.taints",))
    node.store.faults.add(fault)
    async with node.publishing() as agent:
        await node.prepared("gpu-2")
        node.hardware.remove(2)
        await published(node, minors=set(range(8)) - {2})
        await agent.publisher.wait_published()
        assert agent.publisher.writes.total < 6


async def test_a_driver_upgraded_under_a_claim_is_what_its_cdi_file_names(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        ref = await node.prepared("gpu-2")
        path = a_cdi_file(node)
        before = path.read_bytes()
        node.hardware.driver.upgrade(NEWER)
        after = await changed(path, before)
        assert after.decode().count(NEWER) == before.decode().count(
            node.hardware.profile.driver_version
        )
        assert (await node.unprepare(ref))["claim"].error == ""


async def test_a_driver_that_is_half_there_leaves_the_old_cdi_file_until_it_is_whole(
    tmp_path: Path,
) -> None:
    node = await a_node(tmp_path)
    async with node.publishing() as agent:
        await node.prepared("gpu-2")
        path = a_cdi_file(node)
        before = path.read_bytes()
        driver = node.hardware.driver
        driver.unload()
        driver.uninstall()
        driver.install(NEWER, only=["libcuda.so", "libnvidia-ml.so"])
        driver.load(NEWER)
        await until(lambda: agent.keeper.current.driver_version == NEWER)
        await agent.claims.verify()  # may join a look that had begun before
        report = await agent.claims.verify()
        assert len(report.waiting) == 1
        assert path.read_bytes() == before
        error = (await node.prepare(await node.claim("gpu-3", name="other")))["other"].error
        assert "being replaced" in error
        driver.install(NEWER)
        assert NEWER in (await changed(path, before)).decode()


async def test_a_cdi_file_is_looked_at_once_the_agent_has_started(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing():
        await node.prepared("gpu-2")
    path = a_cdi_file(node)
    before = path.read_bytes()
    path.write_bytes(before.replace(b"nvidia2", b"nvidia7"))
    async with node.running():
        await until(lambda: path.read_bytes() == before)


async def test_a_driver_call_that_hangs_holds_up_no_claim(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.publishing() as agent:
        node.hardware.inject("device_count", hang=True)
        agent.keeper.suspect("a test")
        await until(lambda: agent.keeper.age_s > 1.0)
        for minor in range(3):
            ref = await node.claim(f"gpu-{minor}", name=f"claim-{minor}")
            assert (await node.prepare(ref))[ref.name].error == ""
            assert (await node.unprepare(ref))[ref.name].error == ""
        node.hardware.heal()


async def test_a_claim_that_meets_a_change_first_leads_to_a_look(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    deaf = replace(node.hardware.machine, announcers=())
    async with node.publishing(machine=deaf):
        node.hardware.remove(2)
        assert "/dev/nvidia2" in (await node.prepare(await node.claim("gpu-2")))["claim"].error
        await published(node, minors=set(range(8)) - {2})


async def test_every_claim_is_verified_in_one_pass(tmp_path: Path) -> None:
    count = 8
    node = await a_node(tmp_path)
    async with node.idle() as agent:  # whose own passes do not come in between
        refs = [await node.claim(f"gpu-{minor}", name=f"claim-{minor}") for minor in range(count)]
        await agent.claims.prepare(refs)
        for path in node.cdi_root.glob("*.yaml"):
            path.unlink()
        report = await agent.claims.verify()
        assert (len(report.mended), len(report.held), report.waiting) == (count, 0, {})
        again = await agent.claims.verify()
        assert (len(again.mended), len(again.held)) == (0, count)
