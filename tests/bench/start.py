"""From the start of the agent's process to its slices in the API; its memory; its writes.

The floors: the bare interpreter, and the agent's process that imports all, parses its options and
ends (`--version`).
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

from .agent import RunningAgent, delete_slices, running_agent
from .figures import cpu_s, print_document, progress, rounded, spread
from .kubelet import connected
from .production import environ
from .setting import Setting, a_setting, rounds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CYCLES = 1000
SETTLE_S = 2.0
"""How long a restarted agent is watched for writes after its slices were found in place."""

WITH_ENDPOINTS = ("--http-endpoint", "127.0.0.1:0", "--healthcheck-port", "0")


def main(argv: Sequence[str]) -> None:
    options = rounds_of("start", argv, rounds=11, quick=3)
    cycles = CYCLES // 10 if options.quick else CYCLES
    print_document(asyncio.run(_measure(options.rounds, cycles)))


async def _measure(rounds: int, cycles: int) -> dict[str, Any]:
    async with a_setting() as setting:
        async with running_agent(setting.node):
            pass  # lays out the simulated machine, and Python's bytecode caches
        return {
            "start": await _starts(setting, rounds),
            "restart_with_unchanged_hardware": await _restart(setting),
            "memory_mib": await _memory(setting, cycles),
            "memory_mib_with_endpoints": await _memory(setting, cycles, *WITH_ENDPOINTS),
            "cycles": cycles,
            "rounds": rounds,
        }


async def _starts(setting: Setting, rounds: int) -> dict[str, Any]:
    """Each round starts everything once, so that all meet the same machine."""
    found: dict[str, list[float]] = {"interpreter_s": [], "imports_s": [], "slices_visible_s": []}
    cpu: list[float] = []
    for number in range(rounds):
        found["interpreter_s"].append(await _timed(setting, str(setting.node.python), "-c", ""))
        found["imports_s"].append(await _timed(setting, *setting.node.command("--version")))
        async with setting.node.session() as api:
            await delete_slices(api)
        async with running_agent(setting.node) as agent:
            found["slices_visible_s"].append(agent.visible_s)
            cpu.append(cpu_s(agent.process.pid))
        progress(f"start {number + 1}/{rounds}: " + str({k: rounded(found[k][-1]) for k in found}))
    pairs = zip(found["slices_visible_s"], found["imports_s"], strict=True)
    return {
        **{name: spread(values) for name, values in found.items()},
        "cpu_s": rounded(statistics.median(cpu)),
        "slices_visible_to_imports": spread([visible / imports for visible, imports in pairs]),
    }


async def _timed(setting: Setting, *command: str) -> float:
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, env=environ(**setting.node.access.environ()), stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return time.perf_counter() - started


async def _restart(setting: Setting) -> dict[str, int]:
    """API calls of an agent that finds its slices as they have to be, by verb."""
    before = await setting.api_server.ask()
    async with running_agent(setting.node):
        await asyncio.sleep(SETTLE_S)
    after = await setting.api_server.ask()
    calls: dict[str, int] = {verb: after[verb] - before[verb] for verb in after}
    writes = sum(calls[verb] for verb in ("create", "update", "patch", "delete"))
    return {"writes": writes, **calls}


async def _memory(setting: Setting, cycles: int, *extra: str) -> dict[str, Any]:
    """Idle, after half of the cycles and after all, eight claims in flight."""
    async with running_agent(setting.node, *extra) as agent:
        await asyncio.sleep(SETTLE_S)
        found: dict[str, Any] = {"idle": _sizes(agent)}
        async with connected(setting.node.socket, setting.claims) as driver:
            for share in ("after_half_of_the_cycles", "after_the_cycles"):
                await driver.loop(8, cycles=cycles // 2)
                found[share] = _sizes(agent)
                progress(f"{share}: {found[share]}")
    return found


def _sizes(agent: RunningAgent) -> dict[str, float]:
    return {**agent.memory_mib(), "threads": agent.threads()}
