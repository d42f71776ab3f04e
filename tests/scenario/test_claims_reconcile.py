"""A lost record is rebuilt where API, CDI file and hardware agree; else the claim stays fenced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from nvdra_kube.errors import ServerError
from nvdra_nodeagent.claims.journal import decode, encode
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.overlap import Extent
from nvdra_nodeagent.errors import Retryable
from nvdra_nodeagent.inventory.model import Inventory
from nvdra_testing.claims import ClaimNode, a_gpu, a_mig, a_node_of, a_ref

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_nodeagent.claims.service import NodeClaims

REF, RIVAL = a_ref(), a_ref("rival")
SHREDS = b"#"
MIG = a_mig(0)
MIG_NODE = Inventory((a_gpu(0, migs=[MIG, a_mig(0, start=1, gi=8)]),))


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[ClaimNode]:
    """With one prepared claim, in use by a pod, of which the record was damaged since."""
    node = ClaimNode(tmp_path)
    node.api.add(REF)
    reserve(node)
    await node.agent().prepare([REF])
    node.record_path(REF).write_bytes(SHREDS)
    yield node
    await node.close()


def reserve(node: ClaimNode, ref: ClaimRef = REF) -> None:
    status = node.api.claims[ref.name]["status"]
    status["reservedFor"] = [{"resource": "pods", "name": "pod", "uid": "1"}]


async def reasons_for_rival(agent: NodeClaims, node: ClaimNode) -> str:
    answer = (await agent.prepare([node.api.add(RIVAL, "gpu-0")]))[RIVAL.uid]
    return str(answer) if isinstance(answer, Retryable) else ""


async def test_a_damaged_record_is_rebuilt_as_it_was(node: ClaimNode) -> None:
    agent = node.agent()
    before = node.files()
    assert (await agent.reconcile()).rebuilt == [REF.uid]
    assert node.files() == before
    assert "DeviceInUse" in await reasons_for_rival(agent, node)
    assert agent.fences() == 0


async def test_what_was_rebuilt_is_the_record_that_was_lost(tmp_path: Path) -> None:
    node = ClaimNode(tmp_path)
    node.api.add(REF)
    reserve(node)
    await node.agent().prepare([REF])
    lost = node.record_path(REF).read_bytes()
    node.record_path(REF).write_bytes(SHREDS)
    await node.agent().reconcile()
    assert node.record_path(REF).read_bytes() == lost
    await node.close()


async def test_a_rebuilt_claim_is_unprepared_without_a_rest(node: ClaimNode) -> None:
    agent = node.agent()
    await agent.reconcile()
    assert await agent.unprepare([REF]) == {REF.uid: None}
    assert node.files() == []
    assert await reasons_for_rival(agent, node) == ""


async def test_a_claim_of_which_only_the_cdi_file_is_left_is_found_by_its_uid(
    node: ClaimNode,
) -> None:
    node.record_path(REF).unlink()
    agent = node.agent()
    assert (await agent.reconcile()).rebuilt == [REF.uid]


async def test_a_second_pass_asks_nobody_anything(node: ClaimNode) -> None:
    agent = node.agent()
    await agent.reconcile()
    node.api.calls.clear()
    report = await agent.reconcile()
    assert (report.rebuilt, node.api.calls) == ([], [])


def without_cdi_file(node: ClaimNode) -> None:
    node.cdi.path(REF.uid).unlink()


def with_other_devices_in_the_cdi_file(node: ClaimNode) -> None:
    node.cdi.path(REF.uid).write_text("gpu-1 somewhere\n")


def allocated_elsewhere(node: ClaimNode) -> None:
    (result,) = node.api.claims[REF.name]["status"]["allocation"]["devices"]["results"]
    result["pool"] = "another-node"


def not_allocated(node: ClaimNode) -> None:
    del node.api.claims[REF.name]["status"]["allocation"]


def not_reserved(node: ClaimNode) -> None:
    del node.api.claims[REF.name]["status"]["reservedFor"]


def gone(node: ClaimNode) -> None:
    del node.api.claims[REF.name]


def replaced(node: ClaimNode) -> None:
    node.api.claims[REF.name]["metadata"]["uid"] = a_ref("new").uid


def without_its_gpu(node: ClaimNode) -> None:
    node.inventory = Inventory((a_gpu(1),))


OBSTACLES = {
    without_cdi_file: "no CDI file",
    with_other_devices_in_the_cdi_file: "has gpu-1, allocated is gpu-0",
    allocated_elsewhere: "this node serves pool",
    not_allocated: "not allocated",
    not_reserved: "reserved for no pod",
    gone: "gone",
    replaced: "gone",
    without_its_gpu: "gpu-0 of request gpu is not on this node",
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
async def test_where_they_do_not_agree_the_claim_stays_fenced_and_says_why(
    obstacle: object, node: ClaimNode
) -> None:
    obstacle(node)  # type: ignore[operator]
    agent = node.agent()
    await agent.start()
    report = await agent.reconcile()
    assert report.rebuilt == []
    assert OBSTACLES[obstacle] in report.waiting[REF.uid]  # type: ignore[index]
    assert agent.fences() == 1


async def test_whoever_meets_the_fence_is_told_why_it_stands(node: ClaimNode) -> None:
    with_other_devices_in_the_cdi_file(node)
    agent = node.agent()
    await agent.reconcile()
    assert "its CDI file has gpu-1, allocated is gpu-0" in await reasons_for_rival(agent, node)


async def test_why_a_claim_stays_fenced_is_logged_once(node: ClaimNode) -> None:
    with_other_devices_in_the_cdi_file(node)
    agent = node.agent()
    with capture_logs() as lines:
        for _ in range(3):
            assert (await agent.reconcile()).waiting
    assert [line["event"] for line in lines].count("claim stays fenced") == 1


async def test_an_api_in_trouble_settles_nothing_and_the_next_pass_does(node: ClaimNode) -> None:
    agent = node.agent()
    node.api.errors.append(ServerError("etcd", status=500))
    assert (await agent.reconcile()).rebuilt == []
    assert (await agent.reconcile()).rebuilt == [REF.uid]


async def test_one_claim_that_cannot_be_settled_does_not_stop_the_others(tmp_path: Path) -> None:
    node, other = ClaimNode(tmp_path), a_ref("other")
    for ref, gpu in ((REF, "gpu-0"), (other, "gpu-1")):
        node.api.add(ref, gpu)
        reserve(node, ref)
        await node.agent().prepare([ref])
        node.record_path(ref).unlink()
    without_cdi_file(node)
    node.record_path(REF).write_bytes(SHREDS)
    report = await node.agent().reconcile()
    assert (report.rebuilt, set(report.waiting)) == ([other.uid], {REF.uid})
    await node.close()


async def test_an_answer_of_the_api_that_makes_no_sense_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    node = ClaimNode(tmp_path, inventory=a_node_of(2))
    for number, ref in enumerate((REF, RIVAL)):
        node.api.add(ref, f"gpu-{number}")
        reserve(node, ref)
        await node.agent().prepare([ref])
        node.record_path(ref).write_bytes(SHREDS)
    del node.api.claims[REF.name]["metadata"]["name"]
    report = await node.agent().reconcile()
    assert (report.rebuilt, list(report.waiting)) == ([RIVAL.uid], [REF.uid])
    await node.close()


async def test_a_quarantine_wakes_the_reconciler(node: ClaimNode) -> None:
    agent = node.agent()
    await agent.reconcile()
    keeper = asyncio.create_task(agent.keep_swept(interval_s=3600, jitter_s=0))
    await asyncio.sleep(0)
    node.record_path(REF).write_bytes(SHREDS + SHREDS)
    await agent.unprepare([a_ref("somebody")])  # notices the damage
    async with asyncio.timeout(30):
        while agent.fences() or "quarantined" not in str(node.observer.told):
            await asyncio.sleep(0.01)
    assert node.record_path(REF).read_bytes() != SHREDS + SHREDS
    keeper.cancel()
    await asyncio.wait([keeper])


async def test_an_unprepare_that_comes_first_leaves_nothing_to_rebuild(node: ClaimNode) -> None:
    agent = node.agent()
    node.api.gate = asyncio.Event()
    pass_ = asyncio.create_task(agent.reconcile())
    async with asyncio.timeout(30):
        while not node.api.calls or agent.fences() == 0:
            await asyncio.sleep(0.001)
    assert await agent.unprepare([REF]) == {REF.uid: None}
    node.api.gate.set()
    await pass_
    assert node.files() == []


async def test_a_record_without_a_name_gets_it_from_the_api(tmp_path: Path) -> None:
    node = ClaimNode(tmp_path)
    await node.agent().prepare([node.api.add(REF)])
    path = node.record_path(REF)
    record = decode(path.read_bytes(), uid=REF.uid)
    path.write_bytes(encode(msgspec.structs.replace(record, claim=ClaimRef("", "", REF.uid))))
    assert (await node.agent().reconcile()).completed == [REF.uid]
    assert decode(path.read_bytes(), uid=REF.uid) == record
    await node.close()


async def test_a_mig_device_known_by_its_gpu_only_gets_its_own_extent(tmp_path: Path) -> None:
    node = ClaimNode(tmp_path, inventory=MIG_NODE)
    await node.agent().prepare([node.api.add(REF, MIG.name)])
    path = node.record_path(REF)
    record = decode(path.read_bytes(), uid=REF.uid)
    (held,) = record.devices
    coarse = msgspec.structs.replace(held, extent=Extent(held.extent.gpu_uuid))
    path.write_bytes(encode(msgspec.structs.replace(record, devices=(coarse,))))
    assert (await node.agent().reconcile()).completed == [REF.uid]
    assert decode(path.read_bytes(), uid=REF.uid) == record
    await node.close()


async def test_a_record_of_which_nobody_tells_more_waits(tmp_path: Path) -> None:
    node = ClaimNode(tmp_path)
    await node.agent().prepare([node.api.add(REF)])
    path = node.record_path(REF)
    record = decode(path.read_bytes(), uid=REF.uid)
    path.write_bytes(encode(msgspec.structs.replace(record, claim=ClaimRef("", "", REF.uid))))
    gone(node)
    report = await node.agent().reconcile()
    assert (report.completed, set(report.waiting)) == ([], {REF.uid})
    await node.close()


async def test_a_node_without_inventory_yet_settles_when_it_is_there(node: ClaimNode) -> None:
    node.inventory = Inventory()
    agent = node.agent()
    assert (await agent.reconcile()).rebuilt == []
    node.inventory = a_node_of(2)
    assert (await agent.reconcile()).rebuilt == [REF.uid]
