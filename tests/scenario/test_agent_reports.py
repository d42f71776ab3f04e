"""What users find in the API after an agent has failed or served their claims."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from nvdra_kube.resources import EVENTS, RESOURCE_CLAIMS
from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_testing.agent import SETTLE_S, a_node, until
from nvdra_testing.claims import NODE

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_testing.agent import NodeUnderTest


async def a_claim_of_a_pod(node: NodeUnderTest, device: str) -> ClaimRef:
    ref = await node.claim(device, name="mine")
    body = await node.api.get(RESOURCE_CLAIMS, ref.name, namespace=ref.namespace)
    consumer = {"resource": "pods", "name": "train", "uid": "uid-train"}
    status = {**body["status"], "reservedFor": [consumer]}
    await node.api.update(RESOURCE_CLAIMS, {**body, "status": status}, subresource="status")
    return ref


async def events(node: NodeUnderTest) -> list[Body]:
    items: list[Body] = (await node.api.list(EVENTS))["items"]
    return items


async def told(node: NodeUnderTest, count: int) -> list[Body]:
    """All Events, from when there are so many."""
    async with asyncio.timeout(SETTLE_S):
        while len(found := await events(node)) < count:
            await asyncio.sleep(0.01)
    return found


async def ready(node: NodeUnderTest, ref: ClaimRef) -> list[tuple[str, str]]:
    body = await node.api.get(RESOURCE_CLAIMS, ref.name, namespace=ref.namespace)
    return [
        (condition["status"], condition["reason"])
        for entry in body["status"].get("devices", ())
        for condition in entry["conditions"]
    ]


async def test_a_failed_prepare_is_told_to_claim_and_pod(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.running() as agent:
        ref = await a_claim_of_a_pod(node, "gpu-77")
        answer = (await node.prepare(ref))[ref.name]
        assert "[DeviceNotFound]" in answer.error
        of = {event["involvedObject"]["kind"]: event for event in await told(node, 2)}
        await until(lambda: not agent.reports.reporter.waiting)
    assert set(of) == {"ResourceClaim", "Pod"}
    assert of["Pod"]["involvedObject"]["name"] == "train"
    assert of["Pod"]["reason"] == "DeviceNotFound"
    assert "gpu-77 of request gpu is not on this node" in of["Pod"]["message"]
    assert of["Pod"]["message"].endswith("delete the pod to have it scheduled anew")
    assert of["Pod"]["source"] == {"component": "gpu.nvidia.com", "host": NODE}
    assert await ready(node, ref) == [("False", "DeviceNotFound")]


async def test_a_claim_that_failed_before_a_restart_says_that_it_recovered(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    node.hardware.inject(call="uuid", code=999, gpu=2)
    async with node.publishing() as agent:
        ref = await a_claim_of_a_pod(node, "gpu-2")
        await node.prepare(ref)
        await told(node, 2)
        await until(lambda: not agent.reports.reporter.waiting)
    node.hardware.heal()
    async with node.publishing() as agent:
        assert (await node.prepare(ref))[ref.name].error == ""
        await told(node, 4)
        await until(lambda: not agent.reports.reporter.waiting)
    assert await ready(node, ref) == [("True", "Prepared")]
    reasons = {event["reason"] for event in await events(node)}
    assert reasons == {"DeviceNotFound", "ClaimRecovered"}


async def test_a_claim_that_never_failed_costs_no_write(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.running() as agent:
        await agent.publisher.wait_published()
        ref = await a_claim_of_a_pod(node, "gpu-0")
        written = node.store.faults.add(Fault(verb="patch"))
        created = node.store.faults.add(Fault(verb="create"))
        await node.prepare(ref)
        await node.unprepare(ref)
    assert (written.struck, created.struck) == (0, 0)
    assert (await ready(node, ref), await events(node)) == ([], [])


async def test_a_server_that_refuses_reports_hurts_no_claim(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.running() as agent:
        await agent.publisher.wait_published()
        bad, good = await a_claim_of_a_pod(node, "gpu-77"), await node.claim("gpu-1", name="good")
        node.store.faults.add(Fault(verb="create", resource="events", status=403))
        node.store.faults.add(Fault(verb="patch", resource="resourceclaims", status=403))
        assert (await node.prepare(bad))["mine"].error
        assert (await node.prepare(good))["good"].error == ""
        await until(lambda: agent.reports.reporter.waiting == 0)
        assert agent._unhealthy() == ""
    assert await events(node) == []


async def test_every_duty_that_goes_on_for_ever_has_a_pulse(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.running() as agent:
        ends = {"server version", "dead sockets"}
        silent = {duty.name for duty in agent.duties if duty.last_turn_s is None}
        assert silent - ends == set()


async def test_what_hangs_makes_the_agent_unhealthy(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    async with node.running() as agent:
        await agent.publisher.wait_published()
        assert agent._unhealthy() == ""
        for duty in agent.duties:
            if duty.name == "reporter":
                duty.pulse.began_s = -10_000.0
        agent.reports.reporter.last_turn_s = -10_000.0
        assert agent._unhealthy().startswith("reporter has stood still for ")


async def test_what_the_agent_is_at_can_be_read(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    (node.plugin_dir / "claims").mkdir(parents=True)
    damaged = "6f0a1f9e-4a35-4a3c-9a55-2f1c1d5b8c00"
    (node.plugin_dir / "claims" / f"{damaged}.json").write_text("{")
    async with node.running() as agent:
        await agent.publisher.wait_published()
        ref = await node.claim("gpu-0")
        hanging = node.store.faults.add(Fault(verb="get", resource="resourceclaims", hang=True))
        call = asyncio.create_task(agent.claims.prepare([ref]), name="call")
        await until(lambda: hanging.struck and agent.claims.oldest_work(now_s=0.0)[0])
        text = agent.describe()
        node.store.faults.clear()
        call.cancel()
    assert re.search(rf"^work: prepare {ref}, for \d+\.\d s$", text, re.MULTILINE)
    assert f"fence: claim {damaged}, " in text
    assert "duty: publisher, last came round " in text
    assert "reports: " in text


async def test_a_damaged_record_is_told_to_the_node(tmp_path: Path) -> None:
    node = await a_node(tmp_path)
    (node.plugin_dir / "claims").mkdir(parents=True)
    damaged = "6f0a1f9e-4a35-4a3c-9a55-2f1c1d5b8c00"
    (node.plugin_dir / "claims" / f"{damaged}.json").write_text("{")
    async with node.running():
        [event] = await told(node, 1)
    assert (event["reason"], event["involvedObject"]["kind"]) == ("StateQuarantined", "Node")
    assert damaged in event["message"]
