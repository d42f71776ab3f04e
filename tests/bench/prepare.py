"""Prepare and unprepare over the driver's socket: the real agent, and a floor beside it.

The floor does what cannot be left out (`floor_server`). Agent and floor take turns round by round,
so that whatever else the machine does hits both.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from .agent import running_agent
from .figures import cpu_s, medians, print_document, progress, spread
from .floor import a_floor, sizes_of
from .kubelet import Driver, Timings, connected
from .setting import a_setting, rounds_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Pattern = Callable[[Driver, int], Awaitable[Timings]]
    Side = tuple[Driver, int]  # with the process id of its server

PATTERNS: dict[str, Pattern] = {
    "one at a time": lambda driver, cycles: driver.loop(1, cycles=cycles),
    "8 in flight": lambda driver, cycles: driver.loop(8, cycles=cycles),
    "wave of 8": lambda driver, cycles: driver.waves(8, cycles=cycles),
}


def main(argv: Sequence[str]) -> None:
    options = rounds_of("prepare", argv, rounds=7, quick=3)
    print_document(asyncio.run(_measure(options.rounds, cycles=40 if options.quick else 120)))


async def _measure(rounds: int, *, cycles: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        setting = await stack.enter_async_context(a_setting())
        process = (await stack.enter_async_context(running_agent(setting.node))).process
        agent = await stack.enter_async_context(connected(setting.node.socket, setting.claims))
        sizes = await sizes_of(setting, agent)
        server, socket = await a_floor(stack, setting, sizes)
        floor = await stack.enter_async_context(connected(socket, setting.claims))
        for driver in (agent, floor):
            await driver.loop(8, cycles=80)  # connections are opened, caches are filled
        sides = {"agent": (agent, process.pid), "floor": (floor, server.pid)}
        before = await setting.api_server.ask()
        patterns = {
            name: await _compare(name, pattern, sides, rounds=rounds, cycles=cycles)
            for name, pattern in PATTERNS.items()
        }
        after = await setting.api_server.ask()
    writes = sum(after[verb] - before[verb] for verb in ("create", "update", "patch", "delete"))
    return {"patterns": patterns, "rounds": rounds, "files": sizes, "api_writes": writes}


async def _compare(
    name: str, pattern: Pattern, sides: dict[str, Side], *, rounds: int, cycles: int
) -> dict[str, Any]:
    """Rounds of both by turns: the medians of each, and the ratio of each round's p50."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sorted(sides, reverse=bool(number % 2)):
            found[side].append(await _round(pattern, sides[side], cycles))
        p50 = {side: summaries[-1]["prepare"]["p50_ms"] for side, summaries in found.items()}
        progress(f"{name} {number + 1}/{rounds}: {p50['agent']:.2f} ms, floor {p50['floor']:.2f}")
    ratios = {call: spread(_ratios(found, call)) for call in ("prepare", "unprepare")}
    return {**{side: medians(each) for side, each in found.items()}, "p50_to_floor": ratios}


async def _round(pattern: Pattern, side: Side, cycles: int) -> dict[str, Any]:
    driver, pid = side
    before_s = cpu_s(pid)
    summary = (await pattern(driver, cycles)).summary()
    return {**summary, "cpu_ms_per_claim": 1e3 * (cpu_s(pid) - before_s) / cycles}


def _ratios(found: dict[str, list[dict[str, Any]]], call: str) -> list[float]:
    pairs = zip(found["agent"], found["floor"], strict=True)
    return [agent[call]["p50_ms"] / floor[call]["p50_ms"] for agent, floor in pairs]
