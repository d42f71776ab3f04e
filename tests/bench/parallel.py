"""Claims in flight at once: the rate, the tail, and whether a slow GPU slows the others."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from nvdra_sim.hardware import SimulatedHardware

from .agent import running_agent
from .figures import medians, print_document, progress, rounded, spread
from .floor import a_floor, sizes_of
from .kubelet import Driver, Timings, connected
from .setting import Setting, a_setting, rounds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

IN_FLIGHT = (1, 4, 8, 16)
SLICING = ("--feature-gates", "TimeSlicingSettings=true")
SLOW_S = 0.8
"""How long each call of the slow GPU's helper program takes."""


def main(argv: Sequence[str]) -> None:
    options = rounds_of("parallel", argv, rounds=7, quick=2)
    print_document(asyncio.run(_measure(options.rounds, cycles=64 if options.quick else 192)))


async def _measure(rounds: int, *, cycles: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        setting = await stack.enter_async_context(a_setting())
        await stack.enter_async_context(running_agent(setting.node, *SLICING))
        lanes = [*setting.claims, setting.sliced]
        agent = await stack.enter_async_context(connected(setting.node.socket, lanes))
        _, socket = await a_floor(stack, setting, await sizes_of(setting, agent))
        floor = await stack.enter_async_context(connected(socket, lanes))
        for driver in (agent, floor):
            await driver.loop(16, cycles=160)  # connections are opened, caches are filled
        sides = {"agent": agent, "floor": floor}
        return {
            "in_flight": await _rates(sides, rounds, cycles),
            "slow_gpu": await _slow_gpu(setting, agent, rounds, cycles),
            "rounds": rounds,
            "cycles": cycles,
        }


async def _rates(sides: dict[str, Driver], rounds: int, cycles: int) -> dict[str, Any]:
    """By number in flight; all numbers in each round, so that all meet the same machine."""
    found: dict[int, dict[str, list[dict[str, Any]]]] = {
        lanes: {side: [] for side in sides} for lanes in IN_FLIGHT
    }
    for number in range(rounds):
        for side in sorted(sides, reverse=bool(number % 2)):
            for lanes in IN_FLIGHT:
                timings = await sides[side].loop(lanes, cycles=cycles)
                found[lanes][side].append(timings.summary())
        per_s = {lanes: rounded(found[lanes]["agent"][-1]["claims_per_s"]) for lanes in IN_FLIGHT}
        progress(f"rates {number + 1}/{rounds}: {per_s}")
    return {
        str(lanes): {
            **{side: medians(each) for side, each in found[lanes].items()},
            **_ratios(found[lanes], alone=found[1]),
        }
        for lanes in IN_FLIGHT
    }


def _ratios(
    found: dict[str, list[dict[str, Any]]], *, alone: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    pairs = list(zip(found["agent"], found["floor"], strict=True))
    singles = list(zip(found["agent"], alone["agent"], strict=True))
    return {
        "p50_to_floor": {
            call: spread([agent[call]["p50_ms"] / floor[call]["p50_ms"] for agent, floor in pairs])
            for call in ("prepare", "unprepare")
        },
        "rate_to_one_loop": spread(
            [each["claims_per_s"] / one["claims_per_s"] for each, one in singles]
        ),
        "p99_to_p50": spread(
            [each["prepare"]["p99_ms"] / each["prepare"]["p50_ms"] for each in found["agent"]]
        ),
    }


async def _slow_gpu(setting: Setting, agent: Driver, rounds: int, cycles: int) -> dict[str, Any]:
    """Loops on seven GPUs, by turns beside the eighth at rest and beside one that takes `SLOW_S`
    for each call of its helper program."""
    hardware = await asyncio.to_thread(SimulatedHardware.attach, setting.node.directories.machine)
    slow = partial(hardware.inject, code=0, gpu=0, latency_s=SLOW_S)
    for call in ("time_slice", "set_time_slice"):
        await asyncio.to_thread(slow, call)
    found: dict[str, list[dict[str, Any]]] = {"alone": [], "beside_slow": []}
    for number in range(rounds):
        found["alone"].append((await agent.lanes(range(1, 8), cycles=cycles)).summary())
        beside = asyncio.create_task(_keep_slow(agent))
        await asyncio.sleep(SLOW_S / 4)  # until its first program runs
        found["beside_slow"].append((await agent.lanes(range(1, 8), cycles=cycles)).summary())
        beside.cancel()
        with suppress(asyncio.CancelledError):
            await beside
        p99 = {name: rounded(each[-1]["prepare"]["p99_ms"]) for name, each in found.items()}
        progress(f"slow GPU {number + 1}/{rounds}: p99 {p99} ms")
    await asyncio.to_thread(hardware.heal)
    pairs = list(zip(found["beside_slow"], found["alone"], strict=True))
    ratios = {
        name: spread([slow["prepare"][name] / alone["prepare"][name] for slow, alone in pairs])
        for name in ("p50_ms", "p99_ms")
    }
    return {
        **{name: medians(each) for name, each in found.items()},
        "p50_beside_to_alone": ratios["p50_ms"],
        "p99_beside_to_alone": ratios["p99_ms"],
    }


async def _keep_slow(agent: Driver) -> None:
    """Prepare and unprepare claims that need the slow program, for ever."""
    timings = Timings()
    while True:
        claim = agent.take(-1)
        work = asyncio.create_task(_one(agent, claim, timings))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work  # leaves the GPU as it was
            raise


async def _one(agent: Driver, claim: Any, timings: Timings) -> None:
    await agent.prepare(claim, timings)
    await agent.unprepare(claim, timings)
