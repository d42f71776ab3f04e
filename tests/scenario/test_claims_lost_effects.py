"""A GPU whose effect file is lost together with the record that could tell of it."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.hardware.errors import ProgramFailed
from nvdra_testing.claims import ClaimNode, a_config_entry, a_ref, a_result, gpu_uuid
from nvdra_testing.configs import SHARING_ON, a_config, time_slicing
from nvdra_testing.crash_cases import finished

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.service import NodeClaims

BROKEN = ProgramFailed("nvidia-smi compute-policy", outcome="ended with status 255", output="oops")
LONG = {"time_slice": 3}


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[ClaimNode]:
    node = ClaimNode(tmp_path, gates=SHARING_ON)
    yield node
    await node.close()


def sliced(node: ClaimNode, name: str, device: str, *, interval: str = "Long") -> ClaimRef:
    entry = a_config_entry(a_config(sharing=time_slicing(interval=interval)))
    return node.api.add(a_ref(name), a_result(device), config=[entry])


async def prepare(agent: NodeClaims, ref: ClaimRef) -> AgentError | None:
    outcome = (await agent.prepare([ref]))[ref.uid]
    return outcome if isinstance(outcome, AgentError) else None


async def unprepare(agent: NodeClaims, ref: ClaimRef) -> None:
    assert await agent.unprepare([ref]) == {ref.uid: None}


def effect_file(node: ClaimNode) -> Path:
    return node.root / "state" / "effects" / f"time_slice.{gpu_uuid(0)}.json"


def aside(node: ClaimNode) -> Path:
    return node.root / "state" / "quarantine" / f"effects.{effect_file(node).name}"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def swapped_and_flipped(node: ClaimNode) -> tuple[ClaimRef, ClaimRef]:
    """Two claims hold GPUs; neither the records nor the first GPU's effect file can be used."""
    first, second = sliced(node, "a", "gpu-0"), sliced(node, "b", "gpu-1")
    agent = node.agent()
    assert [await prepare(agent, ref) for ref in (first, second)] == [None, None]
    one, other = node.record_path(first), node.record_path(second)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    flip(effect_file(node))
    return first, second


async def test_the_default_is_restored_when_nobody_can_hold_the_gpu_any_more(
    node: ClaimNode,
) -> None:
    refs, agent = await swapped_and_flipped(node), node.agent()
    await agent.start()
    for ref in refs:
        await unprepare(agent, ref)
    with capture_logs() as lines:
        await finished(agent)
    assert (node.gpus.value(0), node.gpus.value(1)) == ({}, {})
    assert node.files() == []
    assert f"quarantined time_slice.{gpu_uuid(0)}" in node.observer.told
    assert "finished later" in node.observer.told
    assert "value found before is lost, default restored" in [line["event"] for line in lines]


async def test_the_gpu_is_fenced_until_then_and_nothing_is_taken_as_found(node: ClaimNode) -> None:
    refs, agent = await swapped_and_flipped(node), node.agent()
    rival = sliced(node, "rival", "gpu-0", interval="Short")
    for ref in refs:
        await unprepare(agent, ref)
    error = await prepare(agent, rival)
    assert error
    assert error.reason == "DeviceFenced"
    assert "default is not restored yet" in str(error)
    await finished(agent)
    assert await prepare(agent, rival) is None
    assert node.gpus.value() == {"time_slice": 1}
    await unprepare(agent, rival)
    assert node.files() == []


async def test_nothing_is_restored_while_a_fenced_claim_may_have_the_gpu(node: ClaimNode) -> None:
    first, second = await swapped_and_flipped(node)
    agent = node.agent()
    await unprepare(agent, second)
    await finished(agent)
    assert node.gpus.value() == LONG
    assert not effect_file(node).exists()
    assert aside(node).exists()
    assert f"quarantined time_slice.{gpu_uuid(0)}" in node.observer.told
    await unprepare(agent, first)
    await finished(agent)
    assert node.gpus.value() == {}
    assert not aside(node).exists()


async def test_the_claim_itself_may_be_prepared_again_and_leaves_the_default(
    node: ClaimNode,
) -> None:
    first, second = await swapped_and_flipped(node)
    agent = node.agent()
    await unprepare(agent, second)
    assert await prepare(agent, first) is None
    assert node.gpus.value() == LONG
    await finished(agent)
    assert node.gpus.value() == LONG
    await unprepare(agent, first)
    assert node.gpus.value() == {}


async def test_a_reconciled_claim_leaves_the_default(node: ClaimNode) -> None:
    first, second = await swapped_and_flipped(node)
    for ref in (first, second):
        node.api.claims[ref.name]["status"]["reservedFor"] = [{"name": "pod"}]
    agent = node.agent()
    assert len((await agent.reconcile()).rebuilt) == 2
    await finished(agent)
    assert node.gpus.value() == LONG
    for ref in (first, second):
        await unprepare(agent, ref)
    assert node.files() == []


async def test_a_gpu_that_does_not_let_itself_be_restored_stays_fenced(node: ClaimNode) -> None:
    refs, agent = await swapped_and_flipped(node), node.agent()
    for ref in refs:
        await unprepare(agent, ref)
    node.gpus.failing = BROKEN
    await finished(agent)
    error = await prepare(agent, node.api.add(a_ref("rival")))
    assert error
    assert error.reason == "DeviceFenced"
    node.gpus.failing = None
    keeper = asyncio.create_task(node.agent().keep_finished())
    while node.files():
        await asyncio.sleep(0.01)
    keeper.cancel()


async def test_what_died_after_setting_the_file_aside_is_finished(node: ClaimNode) -> None:
    refs, agent = await swapped_and_flipped(node), node.agent()
    aside(node).parent.mkdir(exist_ok=True)
    effect_file(node).replace(aside(node))
    for ref in refs:
        await unprepare(agent, ref)
    await finished(agent)
    assert node.gpus.value() == {}
    assert not aside(node).exists()


@pytest.mark.parametrize("content", [b"damaged", None])
async def test_a_lost_effect_that_only_a_tombstone_tells_of_is_undone(
    content: bytes | None, node: ClaimNode
) -> None:
    node.gpus.make(time_slice=1)
    ref, agent = sliced(node, "a", "gpu-0"), node.agent()
    await prepare(agent, ref)
    node.gpus.failing = BROKEN
    await unprepare(agent, ref)
    effect_file(node).unlink()
    if content:
        effect_file(node).write_bytes(content)
    node.gpus.failing = None
    agent = node.agent()
    await finished(agent)
    assert node.gpus.value() == {"time_slice": 1}
    assert [name for name in node.files() if "state" in name] == []


async def without_state(node: ClaimNode) -> ClaimRef:
    ref = sliced(node, "a", "gpu-0")
    assert await prepare(node.agent(), ref) is None
    for name in ("claims", "effects", "quarantine"):
        shutil.rmtree(node.root / "state" / name, ignore_errors=True)
    return ref


async def test_a_claim_prepared_again_without_any_state_leaves_the_default(node: ClaimNode) -> None:
    ref, agent = await without_state(node), node.agent()
    assert await prepare(agent, ref) is None
    assert node.gpus.value() == LONG
    await unprepare(agent, ref)
    assert node.files() == []


async def test_a_claim_reconciled_without_any_state_leaves_the_default(node: ClaimNode) -> None:
    ref, agent = await without_state(node), node.agent()
    node.api.claims[ref.name]["status"]["reservedFor"] = [{"name": "pod"}]
    assert (await agent.reconcile()).rebuilt == [ref.uid]
    assert await prepare(agent, ref) is None
    assert node.gpus.value() == LONG
    await unprepare(agent, ref)
    assert node.files() == []


async def test_a_setting_that_no_claim_explains_is_kept_and_told(node: ClaimNode) -> None:
    """An administrator may have made it."""
    node.gpus.make(time_slice=2)
    ref, agent = sliced(node, "a", "gpu-0"), node.agent()
    with capture_logs() as lines:
        assert await prepare(agent, ref) is None
    (told,) = [line for line in lines if line["event"].startswith("GPU found with a setting")]
    assert (told["gpu"], told["found"]) == (gpu_uuid(0), "compute_mode 0, time_slice 2")
    await unprepare(agent, ref)
    assert node.gpus.value() == {"time_slice": 2}
