"""Time slices of GPUs: set for claims that ask, restored exactly, whoever goes first or dies."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from nvdra_nodeagent.errors import AgentError, Permanent, Retryable
from nvdra_nodeagent.hardware.errors import GpuLost, NotFound, NotSupported, ProgramFailed
from nvdra_testing.claims import (
    OTHER_BOOT,
    ClaimNode,
    a_config_entry,
    a_node_of,
    a_ref,
    a_result,
    gpu_uuid,
)
from nvdra_testing.configs import SHARING_ON, a_config, time_slicing

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


def sliced(node: ClaimNode, name: str = "claim", *results: Any, interval: str = "Long") -> ClaimRef:
    """A claim for gpu-0, or these, shared by time."""
    entry = a_config_entry(a_config(sharing=time_slicing(interval=interval)))
    return node.api.add(a_ref(name), *results, config=[entry])


def shared(node: ClaimNode, name: str, *, interval: str = "Long") -> ClaimRef:
    """A claim for a share of gpu-0."""
    return sliced(node, name, a_result("gpu-0", shareID=f"share-{name}"), interval=interval)


async def prepare(agent: NodeClaims, ref: ClaimRef) -> AgentError | None:
    outcome = (await agent.prepare([ref]))[ref.uid]
    return outcome if isinstance(outcome, AgentError) else None


async def unprepare(agent: NodeClaims, ref: ClaimRef) -> None:
    assert await agent.unprepare([ref]) == {ref.uid: None}


def effect_file(node: ClaimNode, minor: int = 0) -> Path:
    return node.root / "state" / "effects" / f"time_slice.{gpu_uuid(minor)}.json"


async def test_a_time_slice_lives_as_long_as_its_claim(node: ClaimNode) -> None:
    ref, agent = sliced(node), node.agent()
    assert await prepare(agent, ref) is None
    assert node.gpus.value() == LONG
    await unprepare(agent, ref)
    assert node.gpus.value() == {}
    assert node.files() == []


async def test_what_was_found_is_restored(node: ClaimNode) -> None:
    node.gpus.make(time_slice=1, compute_mode=3)
    ref, agent = sliced(node), node.agent()
    assert await prepare(agent, ref) is None
    assert node.gpus.value() == LONG
    await unprepare(agent, ref)
    assert node.gpus.value() == {"time_slice": 1, "compute_mode": 3}


async def test_a_claim_that_asks_for_none_never_touches_a_gpu(node: ClaimNode) -> None:
    ref, agent = node.api.add(a_ref()), node.agent()
    assert await prepare(agent, ref) is None
    await unprepare(agent, ref)
    assert node.gpus.calls == []


async def test_a_gpu_that_is_as_wanted_is_left_alone(node: ClaimNode) -> None:
    ref, agent = sliced(node, interval="Default"), node.agent()
    assert await prepare(agent, ref) is None
    await unprepare(agent, ref)
    assert node.gpus.calls == ["look"]


async def test_a_repeated_prepare_does_not_ask_the_gpu(node: ClaimNode) -> None:
    ref, agent = sliced(node), node.agent()
    await prepare(agent, ref)
    node.gpus.calls.clear()
    assert await prepare(agent, ref) is None
    assert node.gpus.calls == []


async def test_every_gpu_of_a_claim_is_set_and_restored(node: ClaimNode) -> None:
    ref, agent = sliced(node, "claim", "gpu-1", "gpu-0"), node.agent()
    assert await prepare(agent, ref) is None
    assert (node.gpus.value(0), node.gpus.value(1)) == (LONG, LONG)
    await unprepare(agent, ref)
    assert node.files() == []


async def test_the_second_claim_joins_and_the_first_may_leave_before_it(node: ClaimNode) -> None:
    first, second, agent = shared(node, "a"), shared(node, "b"), node.agent()
    assert [await prepare(agent, ref) for ref in (first, second)] == [None, None]
    await unprepare(agent, first)
    assert node.gpus.value() == LONG
    await unprepare(agent, second)
    assert node.files() == []


async def test_another_value_is_refused_while_a_claim_holds_one(node: ClaimNode) -> None:
    first, second, agent = shared(node, "a"), shared(node, "b", interval="Short"), node.agent()
    await prepare(agent, first)
    error = await prepare(agent, second)
    assert isinstance(error, Retryable)
    assert error.reason == "EffectConflict"
    assert first.uid in str(error)
    await unprepare(agent, first)
    assert await prepare(agent, second) is None
    assert node.gpus.value() == {"time_slice": 1}


async def test_a_failure_of_one_gpu_restores_the_others_and_leaves_nothing(node: ClaimNode) -> None:
    ref, agent = sliced(node, "claim", "gpu-0", "gpu-1"), node.agent()
    node.gpus.on_call = lambda verb, gpu: _fail_if(gpu == gpu_uuid(1))
    error = await prepare(agent, ref)
    assert error
    assert "oops" in str(error)
    assert node.files() == []


async def test_a_gpu_without_time_slices_is_a_clear_refusal(node: ClaimNode) -> None:
    node.gpus.failing = NotSupported("`nvidia-smi`", code=3, reason="Not Supported")
    error = await prepare(node.agent(retry_budget_s=20), sliced(node))
    assert isinstance(error, Permanent)
    assert error.reason == "SharingUnsupported"
    assert node.files() == []


async def test_a_program_that_fails_for_a_while_is_tried_again_within_the_call(
    node: ClaimNode,
) -> None:
    failures = iter([True, True, True])
    node.gpus.on_call = lambda verb, gpu: _fail_if(verb == "set" and next(failures, False))
    assert await prepare(node.agent(retry_budget_s=20), sliced(node)) is None
    assert node.gpus.value() == LONG


async def test_unprepare_answers_though_the_gpu_cannot_be_restored(node: ClaimNode) -> None:
    ref, rival, agent = sliced(node), node.api.add(a_ref("rival")), node.agent()
    await prepare(agent, ref)
    node.gpus.failing = BROKEN
    await unprepare(agent, ref)
    assert not node.cdi.exists(ref.uid)
    assert not node.record_path(ref).exists()
    error = await prepare(agent, rival)
    assert error
    assert error.reason == "DeviceFenced"
    assert "oops" in str(error)
    assert await prepare(agent, node.api.add(a_ref("neighbour"), "gpu-1")) is None


async def test_what_was_put_off_is_finished_in_the_background(node: ClaimNode) -> None:
    ref, rival, agent = sliced(node), node.api.add(a_ref("rival")), node.agent()
    keeper = asyncio.create_task(agent.keep_finished())
    await prepare(agent, ref)
    node.gpus.failing = BROKEN
    await unprepare(agent, ref)
    node.gpus.failing = None
    while await prepare(agent, rival):
        await asyncio.sleep(0.01)
    assert node.gpus.value() == {}
    keeper.cancel()
    assert node.observer.told.count("put off GpuSettingFailed") == 1
    assert node.observer.told.count("finished later") == 1


async def test_what_was_put_off_is_finished_by_the_next_agent(node: ClaimNode) -> None:
    ref, agent = sliced(node), node.agent()
    await prepare(agent, ref)
    node.gpus.failing = GpuLost("`nvidia-smi`", code=15, reason="GPU is lost")
    await unprepare(agent, ref)
    node.gpus.failing = None
    keeper = asyncio.create_task(node.agent().keep_finished())
    while node.files():
        await asyncio.sleep(0.01)
    keeper.cancel()


async def test_a_claim_that_comes_back_finishes_what_it_had_left(node: ClaimNode) -> None:
    node.gpus.make(time_slice=1)
    ref, agent = sliced(node), node.agent()
    await prepare(agent, ref)
    node.gpus.failing = BROKEN
    await unprepare(agent, ref)
    assert await prepare(agent, ref)
    node.gpus.failing = None
    assert await prepare(agent, ref) is None
    await unprepare(agent, ref)
    assert node.gpus.value() == {"time_slice": 1}
    assert [name for name in node.files() if "state" in name] == []


async def test_unprepare_may_be_repeated_while_something_is_put_off(node: ClaimNode) -> None:
    ref, agent = sliced(node), node.agent()
    await prepare(agent, ref)
    node.gpus.failing = BROKEN
    for _ in range(3):
        await unprepare(agent, ref)
    assert any("tombstones" in name for name in node.files())


async def test_without_a_tombstone_the_record_stays_and_the_kubelet_asks_again(
    node: ClaimNode,
) -> None:
    ref, agent = sliced(node), node.agent()
    await prepare(agent, ref)
    node.gpus.failing = BROKEN
    in_the_way = node.root / "state" / "tombstones"
    in_the_way.write_text("not a directory")
    outcome = (await agent.unprepare([ref]))[ref.uid]
    assert isinstance(outcome, Retryable)
    assert str(in_the_way) in str(outcome)
    assert node.record_path(ref).exists()
    in_the_way.unlink()
    node.gpus.failing = None
    await unprepare(agent, ref)
    assert node.files() == []


@pytest.mark.parametrize("after", range(0, 24, 2))
async def test_a_prepare_cancelled_and_overtaken_at_any_turn_leaves_nothing(
    after: int, node: ClaimNode
) -> None:
    ref, agent = sliced(node, "claim", "gpu-0", "gpu-1"), node.agent()
    call = asyncio.create_task(agent.prepare([ref]))
    for _ in range(after):
        await asyncio.sleep(0)
    call.cancel()
    await unprepare(agent, ref)
    assert node.files() == []
    assert await prepare(agent, ref) is None
    assert (node.gpus.value(0), node.gpus.value(1)) == (LONG, LONG)


@pytest.mark.parametrize("steps", range(1, 5))
async def test_an_agent_that_is_stopped_between_steps_leaves_what_the_next_call_finishes(
    node: ClaimNode, steps: int
) -> None:
    ref, agent = sliced(node, "claim", "gpu-0", "gpu-1"), node.agent()
    entered, release = asyncio.Event(), threading.Event()
    loop, calls = asyncio.get_running_loop(), iter(range(1, 100))

    def hold(verb: str, gpu: str) -> None:
        if next(calls) == steps:
            loop.call_soon_threadsafe(entered.set)
            release.wait(timeout=30)

    node.gpus.on_call = hold
    call = asyncio.create_task(agent.prepare([ref]))
    await entered.wait()
    drained = asyncio.create_task(agent.drain(timeout_s=0.0))
    for _ in range(5):
        await asyncio.sleep(0)
    release.set()
    await drained
    await call
    next_agent = node.agent()
    assert await prepare(next_agent, ref) is None
    assert (node.gpus.value(0), node.gpus.value(1)) == (LONG, LONG)
    await unprepare(next_agent, ref)
    assert node.files() == []


async def test_a_gpu_that_is_gone_needs_no_undoing(node: ClaimNode) -> None:
    ref, agent = sliced(node), node.agent()
    await prepare(agent, ref)
    node.gpus.make()
    node.gpus.failing = NotFound("`nvidia-smi`", code=6, reason="No devices were found")
    await unprepare(agent, ref)
    assert node.files() == []


async def test_after_a_reboot_a_time_slice_is_set_anew_and_the_fresh_value_restored(
    node: ClaimNode,
) -> None:
    node.gpus.make(time_slice=1)
    ref = sliced(node)
    await prepare(node.agent(), ref)
    node.gpus.make()  # what a reboot leaves
    agent = node.agent(boot_id=OTHER_BOOT)
    assert await prepare(agent, ref) is None
    assert node.gpus.value() == LONG
    await unprepare(agent, ref)
    assert node.files() == []


async def test_after_a_reboot_an_effect_that_is_gone_is_forgotten(node: ClaimNode) -> None:
    node.gpus.make(time_slice=1)
    ref = sliced(node)
    await prepare(node.agent(), ref)
    node.gpus.make(time_slice=2)  # by whoever prepares this node
    await unprepare(node.agent(boot_id=OTHER_BOOT), ref)
    assert node.gpus.value() == {"time_slice": 2}


async def test_after_a_reboot_what_a_driver_begins_with_is_not_taken_for_an_effect(
    node: ClaimNode,
) -> None:
    node.gpus.make(time_slice=1)
    ref = sliced(node, interval="Default")
    await prepare(node.agent(), ref)
    node.gpus.make()
    await unprepare(node.agent(boot_id=OTHER_BOOT), ref)
    assert node.files() == []


async def test_after_a_reboot_an_effect_that_outlived_it_is_undone(node: ClaimNode) -> None:
    ref = sliced(node)
    await prepare(node.agent(), ref)
    await unprepare(node.agent(boot_id=OTHER_BOOT), ref)
    assert node.files() == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 300, None])
async def test_a_damaged_or_lost_effect_file_is_rebuilt_from_the_records(
    node: ClaimNode, damage: bytes | None
) -> None:
    node.gpus.make(time_slice=1)
    first, second, agent = shared(node, "a"), shared(node, "b"), node.agent()
    await prepare(agent, first)
    await prepare(agent, second)
    effect_file(node).unlink()
    if damage is not None:
        effect_file(node).write_bytes(damage)
    await unprepare(agent, second)
    assert node.gpus.value() == LONG
    await unprepare(agent, first)
    assert node.gpus.value() == {"time_slice": 1}
    assert [name for name in node.files() if "state" in name] == []


async def test_a_damaged_effect_file_is_reported(node: ClaimNode) -> None:
    ref, agent = sliced(node), node.agent()
    await prepare(agent, ref)
    effect_file(node).write_bytes(b"damaged")
    await prepare(agent, ref)
    assert any(told.startswith("quarantined time_slice") for told in node.observer.told)


@pytest.mark.parametrize("lost", ["damaged", "missing"])
async def test_a_claim_without_record_is_still_undone(node: ClaimNode, lost: str) -> None:
    ref = sliced(node)
    await prepare(node.agent(), ref)
    node.record_path(ref).unlink()
    if lost == "damaged":
        node.record_path(ref).write_bytes(b"damaged")
    await unprepare(node.agent(), ref)
    assert node.files() == []


async def test_a_damaged_tombstone_keeps_its_gpu_fenced_until_it_is_restored(
    node: ClaimNode,
) -> None:
    ref, rival, agent = sliced(node), node.api.add(a_ref("rival")), node.agent()
    await prepare(agent, ref)
    node.gpus.failing = BROKEN
    await unprepare(agent, ref)
    (tombstone,) = (node.root / "state" / "tombstones").iterdir()
    tombstone.write_bytes(b"damaged")
    error = await prepare(agent, rival)
    assert error
    assert error.reason == "DeviceFenced"
    node.gpus.failing = None
    keeper = asyncio.create_task(node.agent().keep_finished())
    while await prepare(agent, rival):
        await asyncio.sleep(0.01)
    keeper.cancel()
    assert node.gpus.value() == {}


async def test_claims_on_different_gpus_do_not_wait_for_each_others_program(
    node: ClaimNode,
) -> None:
    node.inventory = a_node_of(8)
    refs = [sliced(node, f"c{number}", f"gpu-{number}") for number in range(8)]
    together = threading.Barrier(8)  # breaks if one of them has to wait for another one
    node.gpus.on_call = lambda verb, gpu: _ignore(together.wait(timeout=35))
    agent = node.agent()
    outcomes = await agent.prepare(refs)
    assert all(isinstance(outcome, tuple) for outcome in outcomes.values()), outcomes
    assert await agent.unprepare(refs) == dict.fromkeys((ref.uid for ref in refs), None)
    assert node.files() == []


@pytest.mark.timeout(300)
async def test_a_gpu_whose_program_hangs_holds_up_no_other_claim(node: ClaimNode) -> None:
    release = threading.Event()
    slow, agent = sliced(node), node.agent(answer_within_s=600.0)
    node.gpus.on_call = lambda verb, gpu: _ignore(gpu == gpu_uuid(0) and release.wait())
    try:
        hanging = asyncio.create_task(agent.prepare([slow]))
        for number in range(40):
            ref = sliced(node, f"c{number}", "gpu-1")
            assert await prepare(agent, ref) is None
            await unprepare(agent, ref)
        assert not hanging.done()
    finally:
        release.set()
    assert isinstance((await hanging)[slow.uid], tuple)


async def test_an_unprepare_stops_a_prepare_between_its_steps(node: ClaimNode) -> None:
    node.inventory = a_node_of(8)
    ref, agent = sliced(node, "claim", *(f"gpu-{n}" for n in range(8))), node.agent()
    entered, release = threading.Event(), threading.Event()

    def hold(verb: str, gpu: str) -> None:
        entered.set()
        release.wait(timeout=30)

    node.gpus.on_call = hold
    call = asyncio.create_task(agent.prepare([ref]))
    await asyncio.to_thread(entered.wait, 30)
    ending = asyncio.create_task(agent.unprepare([ref]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    release.set()
    assert await ending == {ref.uid: None}
    await call
    assert len(node.gpus.calls) <= 4  # the first GPU only
    assert node.files() == []


def _fail_if(failing: bool) -> None:
    if failing:
        raise BROKEN


def _ignore(_: object) -> None: ...
