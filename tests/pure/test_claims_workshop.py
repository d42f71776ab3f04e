"""Work on a claim is done once, in order, and to its end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.claims.workshop import Threads, Workshop
from nvdra_testing.claims import a_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nvdra_nodeagent.claims.model import ClaimRef

REF = a_ref()


class Bench:
    """Work that waits for the test; remembers what began and what ended."""

    def __init__(self) -> None:
        self.shop: Workshop[str] = Workshop()
        self.open = asyncio.Event()
        self.log: list[str] = []

    def work(self, name: str) -> Callable[[ClaimRef], Coroutine[None, None, str]]:
        async def run(ref: ClaimRef) -> str:
            self.log.append(f"{name} begins")
            await self.open.wait()
            self.log.append(f"{name} ends")
            return name

        return run

    def prepare(self, name: str = "prepare", ref: ClaimRef = REF) -> asyncio.Task[str]:
        return self.shop.order("prepare", ref, self.work(name))

    def unprepare(self, name: str = "unprepare") -> asyncio.Task[str]:
        return self.shop.order("unprepare", REF, self.work(name))


async def test_a_repeated_order_joins_the_running_work() -> None:
    bench = Bench()
    first = bench.prepare()
    await asyncio.sleep(0)
    assert bench.prepare("again") is first
    bench.open.set()
    assert await first == "prepare"


async def test_work_that_has_ended_is_done_anew() -> None:
    bench = Bench()
    bench.open.set()
    await bench.prepare()
    await bench.prepare("again")
    assert bench.log.count("again ends") == 1


async def test_different_claims_do_not_wait_for_each_other() -> None:
    bench = Bench()
    tasks = bench.prepare("one"), bench.prepare("two", a_ref("other"))
    await asyncio.sleep(0)
    assert bench.log == ["one begins", "two begins"]
    bench.open.set()
    await asyncio.wait(tasks)


async def test_a_prepare_waits_for_the_unprepare_before_it() -> None:
    bench = Bench()
    bench.unprepare()
    last = bench.prepare()
    bench.open.set()
    await last
    assert bench.log == ["unprepare begins", "unprepare ends", "prepare begins", "prepare ends"]


async def test_an_unprepare_ends_a_prepare_that_nobody_waits_for() -> None:
    bench = Bench()
    prepare = bench.prepare()
    await asyncio.sleep(0)
    unprepare = bench.unprepare()
    bench.open.set()
    await unprepare
    assert prepare.cancelled()
    assert bench.log == ["prepare begins", "unprepare begins", "unprepare ends"]


async def test_upkeep_waits_for_a_prepare_and_stops_none() -> None:
    bench = Bench()
    prepare = bench.prepare()
    upkeep = bench.shop.order("reconcile", REF, bench.work("upkeep"))
    bench.open.set()
    assert (await prepare, await upkeep) == ("prepare", "upkeep")
    assert bench.log == ["prepare begins", "prepare ends", "upkeep begins", "upkeep ends"]


async def test_a_prepare_after_an_overtaking_unprepare_is_new_work() -> None:
    bench = Bench()
    first = bench.prepare("first")
    bench.unprepare()
    second = bench.prepare("second")
    bench.open.set()
    assert second is not first
    assert await second == "second"
    assert bench.log[-2:] == ["second begins", "second ends"]


async def test_draining_waits_for_all_work() -> None:
    bench = Bench()
    bench.prepare()
    drained = asyncio.create_task(bench.shop.drain(timeout_s=60))
    await asyncio.sleep(0)
    assert bench.shop.is_busy(REF.uid)
    assert not drained.done()
    bench.open.set()
    assert await drained == ()
    assert not bench.shop.is_busy(REF.uid)


async def test_work_that_takes_too_long_is_stopped_and_named() -> None:
    bench = Bench()
    task = bench.prepare()
    assert await bench.shop.drain(timeout_s=0.01) == (f"prepare {REF}",)
    assert task.cancelled()
    assert bench.log == ["prepare begins"]


async def test_the_oldest_work_is_known_by_name_and_age() -> None:
    bench = Bench()
    assert bench.shop.oldest(now_s=5.0) == ("", 0.0)
    first, other = bench.prepare("first"), bench.prepare("other", a_ref("other"))
    asked_s = asyncio.get_running_loop().time() + 100
    name, age_s = bench.shop.oldest(now_s=asked_s)
    assert (name, age_s > 99) == (f"prepare {REF}", True)
    bench.open.set()
    await asyncio.gather(first, other)
    assert bench.shop.oldest(now_s=asked_s) == ("", 0.0)


async def test_a_cancelled_caller_is_held_until_its_thread_has_ended() -> None:
    threads, release, ended = Threads(1), threading.Event(), threading.Event()

    def work() -> None:
        release.wait(20)
        ended.set()

    caller = asyncio.create_task(threads.run(work))
    for _ in range(3):  # insistent
        await asyncio.sleep(0)
        caller.cancel()
    assert not caller.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
    threads.close()


async def test_an_error_in_a_thread_reaches_its_caller() -> None:
    threads = Threads(1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    threads.close()
