"""Keys in, calls out."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from nvdra_kube.errors import Conflict
from nvdra_sim.cluster.controllers.workqueue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_kube.informer import Key

A, B = ("ns", "a"), ("ns", "b")

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


@asynccontextmanager
async def working(queue: WorkQueue) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(), name="queue under test")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_added_twice_is_looked_at_once() -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> None:
        seen.append(key)

    queue = WorkQueue("test", reconcile)
    for key in (A, B, A):
        queue.add(key)
    async with working(queue):
        await asyncio.sleep(1)
    assert seen == [A, B]


async def test_a_key_added_during_its_turn_gets_another() -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> None:
        seen.append(key)
        if len(seen) == 1:
            queue.add(key)

    queue = WorkQueue("test", reconcile)
    queue.add(A)
    async with working(queue):
        await asyncio.sleep(1)
    assert seen == [A, A]


@pytest.mark.parametrize("error", [Conflict("stale"), ValueError("a bug")])
async def test_a_failed_key_comes_back_and_the_others_are_not_held_up(error: Exception) -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> None:
        seen.append(key)
        if seen.count(A) < 3 and key == A:
            raise error

    queue = WorkQueue("test", reconcile)
    queue.add(A)
    queue.add(B)
    async with working(queue):
        await asyncio.sleep(60)
    assert seen == [A, B, A, A]


async def test_an_idle_queue_calls_nobody() -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> None:
        seen.append(key)

    async with working(WorkQueue("test", reconcile)):
        await asyncio.sleep(3600)
    assert seen == []
