"""What was put off is tried again, ever more rarely, and never given up."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import pytest

from nvdra_nodeagent.claims.undertaker import Undertaker
from nvdra_nodeagent.errors import Retryable
from nvdra_testing.claims import CountingObserver, a_ref

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.claims.model import ClaimRef

T = TypeVar("T")
REF, OTHER = a_ref(), a_ref("other")
TROUBLE = Retryable("GpuSettingFailed", "no")


@dataclass
class Graveyard:
    """Claims that are unfinished until `stubborn` attempts have failed; -1 for ever."""

    stubborn: dict[str, int] = field(default_factory=dict)
    tried: list[tuple[str, float]] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    crashing: set[str] = field(default_factory=set)
    looks: int = 0
    observer: CountingObserver = field(default_factory=CountingObserver)
    broken: bool = False

    def undertaker(self) -> Undertaker:
        return Undertaker(
            self.unfinished,
            run=self.run,
            is_busy=self.busy.__contains__,
            finish=self.finish,
            observer=self.observer,
        )

    def unfinished(self) -> set[str]:
        self.looks += 1
        if self.broken:
            raise Retryable("StorageUnreadable", "no disk")
        return set(self.stubborn)

    async def run(self, work: Callable[[], T]) -> T:
        return work()

    async def finish(self, uid: str) -> ClaimRef | None:
        self.tried.append((uid, asyncio.get_running_loop().time()))
        if uid in self.hanging:
            await asyncio.Event().wait()
        if uid in self.crashing:
            raise ValueError("unforeseen")
        if self.stubborn[uid]:
            self.stubborn[uid] -= 1
            raise TROUBLE
        del self.stubborn[uid]
        return REF


async def watched(yard: Graveyard, *, until: Callable[[], bool]) -> None:
    task = asyncio.create_task(yard.undertaker().run())
    while not until():
        await asyncio.sleep(0.5)
    task.cancel()


@pytest.mark.looptime
async def test_what_is_there_at_the_start_is_finished_at_once() -> None:
    yard = Graveyard({REF.uid: 0})
    await watched(yard, until=lambda: not yard.stubborn)
    assert yard.tried[0][1] < 0.1
    assert yard.observer.told == ["finished later"]


@pytest.mark.looptime
async def test_pauses_grow_to_a_minute_and_it_is_never_given_up() -> None:
    yard = Graveyard({REF.uid: -1})
    await watched(yard, until=lambda: len(yard.tried) > 12)
    times = [time for _, time in yard.tried]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[0] <= 1.1
    assert 29 <= pauses[-1] <= 61


@pytest.mark.looptime
async def test_woken_a_trace_too_early_it_does_not_spin() -> None:
    undertaker = Graveyard({REF.uid: -1}).undertaker()
    pause_s = await undertaker.look()
    await asyncio.sleep(pause_s - 1e-5)
    assert await undertaker.look() >= 0.05


@pytest.mark.looptime
async def test_a_stubborn_claim_does_not_hold_up_another_one() -> None:
    yard = Graveyard({REF.uid: -1, OTHER.uid: 2})
    await watched(yard, until=lambda: OTHER.uid not in yard.stubborn)
    assert [uid for uid, _ in yard.tried].count(OTHER.uid) == 3


@pytest.mark.looptime
async def test_a_claim_that_is_worked_on_is_left_alone() -> None:
    yard = Graveyard({REF.uid: 0}, busy={REF.uid})
    await watched(yard, until=lambda: asyncio.get_running_loop().time() > 30)
    assert yard.tried == []
    yard.busy.clear()
    await watched(yard, until=lambda: not yard.stubborn)


@pytest.mark.looptime
async def test_a_call_wakes_it() -> None:
    yard = Graveyard()
    undertaker = yard.undertaker()
    task = asyncio.create_task(undertaker.run())
    await asyncio.sleep(1)
    yard.stubborn[REF.uid] = 0
    undertaker.call(REF, TROUBLE)
    await asyncio.sleep(0.1)
    task.cancel()
    assert yard.observer.told == ["put off GpuSettingFailed", "finished later"]


@pytest.mark.looptime
async def test_what_cannot_be_listed_is_listed_later() -> None:
    yard = Graveyard({REF.uid: 0}, broken=True)
    task = asyncio.create_task(yard.undertaker().run())
    await asyncio.sleep(15)
    yard.broken = False
    await asyncio.sleep(15)
    task.cancel()
    assert yard.stubborn == {}


@pytest.mark.looptime
async def test_a_claim_that_is_overdue_and_worked_on_is_not_looked_at_without_pause() -> None:
    yard = Graveyard({REF.uid: -1})
    await watched(yard, until=lambda: len(yard.tried) == 1)
    task = asyncio.create_task(yard.undertaker().run())
    await asyncio.sleep(0.1)
    yard.busy.add(REF.uid)
    looked = yard.looks
    await asyncio.sleep(20)
    task.cancel()
    assert yard.looks - looked <= 22


@pytest.mark.looptime
async def test_claims_that_hang_hold_up_no_other_one() -> None:
    yard = Graveyard({REF.uid: 0, OTHER.uid: 0}, hanging={min(REF.uid, OTHER.uid)})
    await watched(yard, until=lambda: len(yard.stubborn) == 1)
    assert asyncio.get_running_loop().time() < 10


@pytest.mark.looptime
async def test_a_claim_that_cannot_be_finished_for_an_unknown_cause_keeps_no_other() -> None:
    yard = Graveyard({REF.uid: 0, OTHER.uid: 0}, crashing={min(REF.uid, OTHER.uid)})
    await watched(yard, until=lambda: len(yard.stubborn) == 1)
    yard.crashing.clear()
    await watched(yard, until=lambda: not yard.stubborn)
