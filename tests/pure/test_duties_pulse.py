"""Whether what should go on goes on: the pulse of duties, in fake time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from nvdra_nodeagent.duties import Duty, do_all, standing_still

pytestmark = pytest.mark.looptime


def now_s() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Errand:
    """Comes round every minute until it hangs."""

    last_turn_s: float = 0.0
    hangs: bool = False

    async def run(self) -> None:
        while not self.hangs:
            self.last_turn_s = now_s()
            await asyncio.sleep(60)
        await asyncio.Event().wait()

    def duty(self, name: str = "errand") -> Duty:
        return Duty(name, self.run, last_turn_s=lambda: self.last_turn_s, patience_s=300)


async def after(duties: tuple[Duty, ...], wait_s: float) -> str:
    """What stands still after the duties were done for so long."""
    doing = asyncio.create_task(do_all(duties), name="duties")
    await asyncio.sleep(wait_s)
    told = standing_still(duties, now_s=now_s())
    doing.cancel()
    await asyncio.gather(doing, return_exceptions=True)
    return told


async def test_what_comes_round_does_not_stand_still() -> None:
    assert await after((Errand().duty(),), 3600) == ""


async def test_what_hangs_is_named() -> None:
    told = await after((Errand().duty("alive"), Errand(hangs=True).duty("dead")), 400)
    assert told == "dead has stood still for 400 s"


async def test_what_hangs_since_a_moment_ago_is_given_time() -> None:
    assert await after((Errand(hangs=True).duty(),), 299) == ""


async def test_a_duty_without_a_pulse_is_not_judged() -> None:
    assert await after((Duty("quiet", Errand(hangs=True).run),), 4000) == ""


async def test_a_duty_that_is_not_done_now_does_not_stand_still() -> None:
    duty = Errand(hangs=True).duty()
    await after((duty,), 400)
    await asyncio.sleep(1000)
    assert standing_still((duty,), now_s=now_s()) == ""


async def test_a_duty_that_begins_again_is_given_time_again() -> None:
    duty = Errand().duty()
    await after((duty,), 100)
    await asyncio.sleep(1000)
    assert await after((duty,), 100) == ""


async def test_a_duty_that_is_finished_does_not_stand_still() -> None:
    async def once() -> None:
        await asyncio.sleep(1)

    assert await after((Duty("once", once, last_turn_s=lambda: 0.0, patience_s=5),), 100) == ""
