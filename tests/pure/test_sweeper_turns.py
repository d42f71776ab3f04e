"""A sweep of many claims takes long while the API server hangs: it is slow, not standing still."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from nvdra_nodeagent.claims.observer import ClaimObserver
from nvdra_nodeagent.claims.plan import Holdings, make_plan
from nvdra_nodeagent.claims.sweeper import Sweeper
from nvdra_nodeagent.errors import Retryable
from nvdra_testing.claims import BOOT, RULES, FolderCdi, a_node_of, a_record, an_allocated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.record import Record

T = TypeVar("T")


class Ledger:
    def refresh(self) -> None: ...

    def records(self) -> tuple[Record, ...]:
        claims = [an_allocated("gpu-0", name=f"claim-{number}") for number in range(50)]
        inventory = a_node_of(1)
        return tuple(
            a_record(c, make_plan(c, inventory=inventory, holdings=Holdings(), rules=RULES))
            for c in claims
        )

    def fences(self) -> tuple[()]:
        return ()


class HangingReader:
    async def current_uid(self, ref: ClaimRef) -> str | None:
        await asyncio.sleep(10.0)
        raise Retryable("ApiUnavailable", "no answer in time")


class SlowReader(HangingReader):
    async def current_uid(self, ref: ClaimRef) -> str | None:
        return None


async def slow_release(ref: ClaimRef) -> bool:
    await asyncio.sleep(45.0)
    return False


async def at_once(work: Callable[[], T]) -> T:
    """In another thread, which the clock of the loop does not see."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.mark.looptime
@pytest.mark.parametrize("reader", [HangingReader(), SlowReader()])
async def test_each_claim_counts_as_a_turn(tmp_path: Path, reader: Any) -> None:
    ledger: Any = Ledger()
    sweeper = Sweeper(
        ledger,
        reader,
        cdi=FolderCdi(tmp_path),
        state_dir=tmp_path,
        directories=(),
        boot_id=BOOT,
        run=at_once,
        is_busy=lambda uid: False,
        release=slow_release,
        observer=ClaimObserver(),
        grace_s=0.0,
    )
    sweep = asyncio.create_task(sweeper.sweep(), name="sweep")
    still_s = []
    while not sweep.done():
        await asyncio.sleep(5.0)
        still_s.append(asyncio.get_running_loop().time() - sweeper.last_turn_s)
    assert len(still_s) > 90  # it did take long
    assert max(still_s) <= 51.0
