"""Claims whose GPUs need a slow or failing nvidia-smi, on simulated hardware."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest_asyncio

from nvdra_nodeagent.claims.books import NodeFacts
from nvdra_nodeagent.claims.plan import GpuPlanner, PlanRules
from nvdra_nodeagent.claims.service import DEFAULT_LIMITS, Limits, NodeClaims
from nvdra_nodeagent.errors import AgentError, NodeFault, Retryable
from nvdra_nodeagent.inventory.snapshot import take_snapshot
from nvdra_nodeagent.steps.time_slice import TimeSliceSetting, TimeSliceStep
from nvdra_testing.agent import until
from nvdra_testing.claims import (
    BOOT,
    DRIVER,
    NODE,
    ClaimApi,
    FolderCdi,
    a_config_entry,
    a_ref,
    cdi_id,
)
from nvdra_testing.configs import SHARING_ON, a_config, time_slicing
from nvdra_testing.simulated import simulated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_sim.hardware import SimulatedHardware

GPUS = 8
LATENCY_S = 0.8


class Node:
    """An agent's claims on a simulated machine of eight GPUs."""

    def __init__(self, root: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.hardware: SimulatedHardware = simulated(root)
        machine = self.hardware.machine
        machine.nvml.init()
        inventory = take_snapshot(machine)
        self.api = ClaimApi()
        rules = PlanRules(driver=DRIVER, gates=SHARING_ON, cdi_id=cdi_id)
        self.claims = NodeClaims(
            self.api,
            node=NodeFacts(
                pool=NODE,
                planner=GpuPlanner(rules, lambda: inventory),
                boot_id=BOOT,
                inventory=lambda: inventory,
            ),
            cdi=FolderCdi(root / "cdi"),
            settings={TimeSliceStep: TimeSliceSetting(machine.nvml, machine.nvidia_smi)},
            state_dir=root / "state",
            limits=limits,
        )

    def sliced(self, gpu: int, *, name: str = "") -> ClaimRef:
        entry = a_config_entry(a_config(sharing=time_slicing(interval="Long")))
        return self.api.add(a_ref(name or f"sliced-{gpu}"), f"gpu-{gpu}", config=[entry])

    async def prepare(self, ref: ClaimRef) -> AgentError | None:
        outcome = (await self.claims.prepare([ref]))[ref.uid]
        return outcome if isinstance(outcome, AgentError) else None

    async def inject(self, call: str, **fault: Any) -> None:
        await asyncio.to_thread(partial(self.hardware.inject, call, **fault))

    async def heal(self) -> None:
        await asyncio.to_thread(self.hardware.heal)

    async def gpus(self) -> list[tuple[int, int]]:
        """Time slice and compute mode of each."""
        state = await asyncio.to_thread(self.hardware.state)
        return [(gpu.time_slice, gpu.compute_mode) for gpu in state.gpus]

    async def close(self) -> None:
        await self.claims.drain()
        self.claims.close()


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = await asyncio.to_thread(Node, tmp_path)
    yield node
    await node.heal()  # or what hangs keeps its thread
    await node.close()


async def test_eight_pods_at_once_with_a_slow_program_all_start(node: Node) -> None:
    await node.inject("time_slice", code=0, latency_s=LATENCY_S)
    await node.inject("set_time_slice", code=0, latency_s=LATENCY_S)
    refs = [node.sliced(gpu) for gpu in range(GPUS)]
    outcomes = await asyncio.gather(*(node.prepare(ref) for ref in refs))
    assert outcomes == [None] * GPUS
    assert await node.gpus() == [(3, 0)] * GPUS
    assert await node.claims.unprepare(refs) == {ref.uid: None for ref in refs}
    assert await node.gpus() == [(0, 0)] * GPUS


async def test_a_claim_without_time_slices_is_done_while_others_wait_for_the_program(
    node: Node,
) -> None:
    await node.inject("set_time_slice", code=0, hang=True)
    slow = [asyncio.create_task(node.prepare(node.sliced(gpu))) for gpu in range(GPUS - 1)]
    await asyncio.sleep(0)
    plain = node.api.add(a_ref("plain"), f"gpu-{GPUS - 1}")
    assert await node.prepare(plain) is None
    assert not any(task.done() for task in slow)
    await node.heal()
    assert await asyncio.gather(*slow) == [None] * (GPUS - 1)


async def test_a_slow_gpu_does_not_slow_another_one(node: Node) -> None:
    await node.inject("set_time_slice", code=0, gpu=0, hang=True)
    slow = asyncio.create_task(node.prepare(node.sliced(0)))
    await asyncio.sleep(0)
    for number in range(5):
        ref = node.sliced(1, name=f"quick-{number}")
        assert await node.prepare(ref) is None
        assert await node.claims.unprepare([ref]) == {ref.uid: None}
    assert not slow.done()
    await node.heal()
    assert await slow is None


async def test_a_claim_that_asks_for_no_time_slice_never_runs_the_program(node: Node) -> None:
    for call in ("time_slice", "set_time_slice", "compute_mode", "set_compute_mode"):
        await node.inject(call, code=255)
    ref = node.api.add(a_ref("plain"), "gpu-0")
    assert await node.prepare(ref) is None
    assert await node.claims.unprepare([ref]) == {ref.uid: None}


async def test_a_lost_gpu_is_named_and_the_others_serve(node: Node) -> None:
    await asyncio.to_thread(node.hardware.lose, 0)
    lost, good = await asyncio.gather(node.prepare(node.sliced(0)), node.prepare(node.sliced(1)))
    assert isinstance(lost, NodeFault)
    assert lost.reason == "GpuLost"
    assert good is None


async def test_an_exclusive_compute_mode_is_lifted_and_restored(node: Node) -> None:
    gpu = await asyncio.to_thread(node.hardware.machine.nvml.device, 0)
    await asyncio.to_thread(gpu.set_compute_mode, 3)
    ref = node.sliced(0)
    assert await node.prepare(ref) is None
    assert (await node.gpus())[0] == (3, 0)
    assert await node.claims.unprepare([ref]) == {ref.uid: None}
    assert (await node.gpus())[0] == (0, 3)


async def test_a_claim_that_takes_too_long_is_answered_with_its_last_failure_and_goes_on(
    tmp_path: Path,
) -> None:
    limits = Limits(answer_within_s=1.0, retry_budget_s=38.0)
    node = await asyncio.to_thread(Node, tmp_path, limits)
    await node.inject("set_time_slice", code=255)
    ref, plain = node.sliced(0), node.api.add(a_ref("plain"), "gpu-1")
    first = asyncio.create_task(node.prepare(ref))
    await until(lambda: node.claims._patience.last_failure(ref.uid))
    outcomes = await node.claims.prepare([ref, plain])
    while not isinstance(outcomes[plain.uid], tuple):  # a disk may take longer for its files
        outcomes = await node.claims.prepare([ref, plain])
    error = outcomes[ref.uid]
    assert isinstance(error, Retryable)
    assert error.reason == "ClaimBusy"
    assert "status 255" in str(error)
    await node.heal()
    await first
    while await node.prepare(ref):
        pass
    assert (await node.gpus())[0] == (3, 0)
    await node.close()
