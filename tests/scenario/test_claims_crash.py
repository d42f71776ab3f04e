"""Killed or cancelled anywhere: the next call finishes the work, and nothing is left over."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from nvdra_nodeagent.claims.journal import encode
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable
from nvdra_nodeagent.steps.registry import kind_of, step_kinds
from nvdra_testing.claims import ClaimNode, a_ref, gpu_uuid
from nvdra_testing.crash_cases import OPERATIONS, REF, Scene, cases_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.service import NodeClaims

SUPPORT = Path(__file__).parents[1] / "support"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # nothing here is about power cuts


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[ClaimNode]:
    node = ClaimNode(tmp_path)
    yield node
    await node.close()


async def prepare(agent: NodeClaims, ref: ClaimRef) -> object:
    return (await agent.prepare([ref]))[ref.uid]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("group", OPERATIONS)
@pytest.mark.parametrize("kind", step_kinds())
async def test_killed_at_any_point_the_next_agent_finds_what_an_undisturbed_run_leaves(
    kind: str, group: str
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        operations = await _killed(directory, kind, group)
    waits = cases_of([kind])[kind].can_wait
    assert len(operations) == sum(waits or not each.waits for each in OPERATIONS[group].values())
    for operation in operations:
        place, undisturbed = operation["operation"], operation["undisturbed"]
        _check_undisturbed(undisturbed, place)
        for point, found in operation["crashes"].items():
            assert found == undisturbed, f"{place}, killed at point {point}"


def _check_undisturbed(report: dict[str, Any], place: str) -> None:
    """That nothing is wrong with what all others are held against."""
    assert "gpu-" in report["again"]["answer"], place
    assert report["again"]["refused"] == "DeviceInUse", place
    assert report["again"]["unprepared"] is report["unprepared"]["unprepared"] is True, place
    for way in report.values():
        assert "gpu-" in way["granted"], place
        assert way["end"] == {} and not way["damaged"], place
        assert not any(a_ref().uid in name for name in way["left"]), place


async def _killed(directory: str, kind: str, group: str) -> list[dict[str, Any]]:
    """What the program prints of each operation."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "nvdra_testing.claim_crashes", directory, kind, group),
        env={"PYTHONPATH": str(SUPPORT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]


def test_a_kind_of_step_without_a_case_is_refused() -> None:
    with pytest.raises(LookupError, match="no crash case for steps of kind novel"):
        cases_of((*step_kinds(), "novel"))


@pytest.mark.parametrize("kind", step_kinds())
async def test_the_claim_of_a_case_has_a_step_of_its_kind(kind: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, cases_of([kind])[kind])
    agent = await scene.agent()
    await agent.prepare([REF])
    record = agent._books.ledger.record(REF.uid)
    assert record
    assert kind in [kind_of(type(entry.step)) for entry in record.steps]
    await scene.node.close()


@pytest.mark.parametrize("after", range(30))
async def test_a_call_cancelled_at_any_turn_goes_on_and_is_joined(
    after: int, node: ClaimNode
) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    call = asyncio.create_task(agent.prepare([ref]))
    await turns(after)
    call.cancel()
    await asyncio.wait([call])
    assert isinstance(await prepare(agent, ref), tuple)
    assert node.cdi.writes == 1
    call2 = asyncio.create_task(agent.unprepare([ref]))
    await turns(after)
    call2.cancel()
    await agent.unprepare([ref])
    assert node.files() == []


@pytest.mark.parametrize("after", range(1, 30))  # the prepare has come first
async def test_an_unprepare_after_any_turn_of_a_prepare_leaves_nothing(
    after: int, node: ClaimNode
) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    call = asyncio.create_task(agent.prepare([ref]))
    await turns(after)
    assert await agent.unprepare([ref]) == {ref.uid: None}
    outcome = (await call)[ref.uid]
    assert isinstance(outcome, tuple | Retryable)
    assert node.files() == []
    assert isinstance(await prepare(agent, a_rival(node)), tuple)


async def test_an_unprepare_does_not_wait_for_a_prepare_that_retries(node: ClaimNode) -> None:
    node.api.gate = asyncio.Event()  # never opened: the API hangs
    ref, agent = node.api.add(a_ref()), node.agent(retry_budget_s=300)
    call = asyncio.create_task(agent.prepare([ref]))
    await turns(3)
    assert await agent.unprepare([ref]) == {ref.uid: None}
    outcome = (await call)[ref.uid]
    assert isinstance(outcome, AgentError)
    assert outcome.reason == "Overtaken"


async def test_draining_lets_running_work_finish(node: ClaimNode) -> None:
    node.api.gate = asyncio.Event()
    ref, agent = node.api.add(a_ref()), node.agent()
    call = asyncio.create_task(agent.prepare([ref]))
    drained = asyncio.create_task(agent.drain())
    await turns(3)
    assert not drained.done()
    node.api.gate.set()
    await drained
    assert isinstance((await call)[ref.uid], tuple)


def a_rival(node: ClaimNode) -> ClaimRef:
    """Another claim for the same GPU."""
    return node.api.add(a_ref("rival"))


def damage(node: ClaimNode, ref: ClaimRef, content: bytes) -> None:
    """As a bad disk would: a new file with other content."""
    path = node.record_path(ref)
    path.unlink()
    path.write_bytes(content)


async def a_damaged_node(node: ClaimNode, *, content: bytes = b"") -> ClaimRef:
    ref = node.api.add(a_ref())
    assert isinstance(await prepare(node.agent(), ref), tuple)
    damage(node, ref, content)
    return ref


async def test_a_damaged_record_fences_its_gpu_and_nothing_else(node: ClaimNode) -> None:
    await a_damaged_node(node)
    agent = node.agent()
    outcome = await prepare(agent, a_rival(node))
    assert isinstance(outcome, Retryable)
    assert outcome.reason == "DeviceFenced"
    assert isinstance(await prepare(agent, node.api.add(a_ref("other"), "gpu-1")), tuple)
    assert f"quarantined {a_ref().uid}" in node.observer.told


async def test_a_damaged_record_is_rebuilt_by_the_next_prepare(node: ClaimNode) -> None:
    ref = await a_damaged_node(node)
    agent = node.agent()
    assert isinstance(await prepare(agent, ref), tuple)
    assert node.files() == [f"cdi/claim_{ref.uid}.txt", f"state/claims/{ref.uid}.json"]
    assert await agent.unprepare([ref]) == {ref.uid: None}
    assert isinstance(await prepare(agent, a_rival(node)), tuple)


async def test_a_damaged_record_can_be_unprepared(node: ClaimNode) -> None:
    ref = await a_damaged_node(node)
    agent = node.agent()
    assert await agent.unprepare([ref]) == {ref.uid: None}
    assert node.files() == []
    assert isinstance(await prepare(agent, a_rival(node)), tuple)


async def test_a_deleted_record_still_fences_what_the_cdi_file_shows(node: ClaimNode) -> None:
    ref = node.api.add(a_ref())
    await prepare(node.agent(), ref)
    node.record_path(ref).unlink()
    agent = node.agent()
    outcome = await prepare(agent, a_rival(node))
    assert isinstance(outcome, Retryable)
    assert outcome.reason == "DeviceFenced"
    assert isinstance(await prepare(agent, ref), tuple)


async def test_damage_while_running_is_noticed_and_survived(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    await prepare(agent, ref)
    damage(node, ref, b"{}")
    assert isinstance(await prepare(agent, a_rival(node)), Retryable)
    assert isinstance(await prepare(agent, ref), tuple)


async def test_a_record_of_a_later_version_is_left_to_that_version(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    await prepare(agent, ref)
    record = agent._books.ledger.record(ref.uid)
    assert record
    content = encode(record, version=7)
    damage(node, ref, content)
    later = node.agent()
    for outcome in (await prepare(later, ref), (await later.unprepare([ref]))[ref.uid]):
        assert isinstance(outcome, Permanent)
        assert "version 7" in str(outcome)
    assert isinstance(await prepare(later, a_rival(node)), Retryable)
    assert node.record_path(ref).read_bytes() == content
    assert gpu_uuid(0) in content.decode()
