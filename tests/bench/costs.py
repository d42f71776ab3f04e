"""What a claim costs the disk and the API server: counted, not timed."""

from __future__ import annotations

import asyncio
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

from .agent import running_agent
from .figures import print_document, rounded
from .kubelet import Driver, Timings, connected
from .production import count_writes
from .setting import Setting, a_setting, rounds_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SLICING = ("--feature-gates", "TimeSlicingSettings=true")


def main(argv: Sequence[str]) -> None:
    options = rounds_of("costs", argv, rounds=20, quick=3)
    print_document(asyncio.run(_measure(options.rounds)))


async def _measure(rounds: int) -> dict[str, Any]:
    async with a_setting() as setting:
        log = count_writes(setting.node.python)
        async with (
            running_agent(setting.node, *SLICING),
            connected(setting.node.socket, [setting.claims[0], setting.sliced]) as driver,
        ):
            return {
                "plain": await _costs(setting, driver, log, lane=0, rounds=rounds),
                "time_sliced": await _costs(setting, driver, log, lane=1, rounds=rounds),
                "rounds": rounds,
            }


async def _costs(
    setting: Setting, driver: Driver, log: Path, *, lane: int, rounds: int
) -> dict[str, Any]:
    """The median of each, by call; a second prepare of the same claim is `prepare_again`.

    Now and then something falls into a round that is no claim's: a watch opened anew, a sweep.
    """
    found: dict[str, list[Counter[str]]] = {}
    timings = Timings()
    for _ in range(rounds):
        claim = driver.take(lane)
        for name, call in (
            ("prepare", driver.prepare),
            ("prepare_again", driver.prepare),
            ("unprepare", driver.unprepare),
        ):
            before = await _counts(setting, log)
            await call(claim, timings)
            after = await _counts(setting, log)
            after.subtract(before)
            found.setdefault(name, []).append(after)
    return {name: _medians(counts) for name, counts in found.items()}


async def _counts(setting: Setting, log: Path) -> Counter[str]:
    """So far: operations on files by name, calls of the API by verb."""
    api: Mapping[str, int] = await setting.api_server.ask()
    return Counter({**Counter(log.read_text().split()), **api})


def _medians(rounds: Sequence[Counter[str]]) -> dict[str, float]:
    names = sorted({name for counts in rounds for name in counts})
    medians = {name: rounded(median(counts[name] for counts in rounds)) for name in names}
    return {name: count for name, count in medians.items() if count}
