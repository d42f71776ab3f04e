"""Slices that somebody deletes or alters, at the worst moment: repaired, and how soon."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from nvdra_kube.resources import NODES, RESOURCE_SLICES
from nvdra_nodeagent.slices.model import SliceContent, SliceDevice
from nvdra_nodeagent.slices.publisher import Publisher
from nvdra_sim.cluster.apiserver import ClusterStore, Fault, LocalApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from nvdra_kube.api import Body

# Time is the loop's own, so "within a second" is no matter of luck.
pytestmark = pytest.mark.looptime

NODE = "node-1"
SLICES = RESOURCE_SLICES.plural
SOON_S = 1.0


def contents(*values: int) -> list[SliceContent]:
    return [
        SliceContent((SliceDevice(f"gpu-{index}", {"type": "gpu", "id": value}),))
        for index, value in enumerate(values)
    ]


class Pool:
    """Two slices of a publisher that runs with its ordinary settings."""

    def __init__(self, api: LocalApi) -> None:
        self.api = api
        self.publisher = Publisher(api, driver="gpu.nvidia.com", node=NODE)

    async def stored(self) -> list[Body]:
        found: list[Body] = (await self.api.list(RESOURCE_SLICES))["items"]
        return found

    async def values(self) -> list[int]:
        return [
            device["attributes"]["id"]["int"]
            for body in await self.stored()
            for device in body["spec"].get("devices", [])
        ]

    async def back_after_s(self, *values: int, look_each_s: float = 0.001) -> float:
        """How long until the API has these again. Fake time is short, looks are not."""
        started = asyncio.get_running_loop().time()
        while await self.values() != list(values):
            await asyncio.sleep(look_each_s)
        return asyncio.get_running_loop().time() - started

    async def wipe(self) -> None:
        for body in await self.stored():
            await self.api.delete(RESOURCE_SLICES, body["metadata"]["name"])

    async def alter(self) -> None:
        for body in await self.stored():
            for device in body["spec"]["devices"]:
                device["attributes"]["id"] = {"int": 99}
            del body["metadata"]["resourceVersion"]  # whoever wrote last
            await self.api.update(RESOURCE_SLICES, body)


MISDEEDS: dict[str, Callable[[Pool], Awaitable[None]]] = {"wipe": Pool.wipe, "alter": Pool.alter}
anyhow = pytest.mark.parametrize("misdeed", MISDEEDS.values(), ids=MISDEEDS)


@pytest.fixture
async def api() -> LocalApi:
    api = LocalApi(ClusterStore())
    await api.create(NODES, {"metadata": {"name": NODE}})
    return api


@asynccontextmanager
async def running(api: LocalApi) -> AsyncIterator[Pool]:
    pool = Pool(api)
    pool.publisher.desire(contents(1, 2))
    task = asyncio.create_task(pool.publisher.run(), name="publisher")
    try:
        yield pool
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@anyhow
async def test_in_the_middle_of_nothing(
    api: LocalApi, misdeed: Callable[[Pool], Awaitable[None]]
) -> None:
    async with running(api) as pool:
        await pool.publisher.wait_published()
        await asyncio.sleep(100.0)
        await misdeed(pool)
        assert await pool.back_after_s(1, 2) < SOON_S


@anyhow
async def test_right_after_the_slices_were_created(
    api: LocalApi, misdeed: Callable[[Pool], Awaitable[None]]
) -> None:
    async with running(api) as pool:
        await pool.publisher.wait_published()
        await misdeed(pool)
        assert await pool.back_after_s(1, 2) < SOON_S


@anyhow
async def test_right_after_an_update(
    api: LocalApi, misdeed: Callable[[Pool], Awaitable[None]]
) -> None:
    async with running(api) as pool:
        await pool.publisher.wait_published()
        pool.publisher.desire(contents(1, 3))
        await pool.publisher.wait_published()
        await misdeed(pool)
        assert await pool.back_after_s(1, 3) < SOON_S


@anyhow
@pytest.mark.parametrize("verb", ["create", "update"])
@pytest.mark.parametrize("after", [False, True], ids=["on-its-way", "on-its-way-back"])
async def test_while_our_own_write_is_under_way(
    api: LocalApi, misdeed: Callable[[Pool], Awaitable[None]], verb: str, *, after: bool
) -> None:
    slow = Fault(verb=verb, resource=SLICES, latency_s=0.2, after=after, count=2)
    if verb == "create":
        api.store.faults.add(slow)
    async with running(api) as pool:
        if verb == "update":
            await pool.publisher.wait_published()
            api.store.faults.add(slow)
            pool.publisher.desire(contents(3, 4))
        await asyncio.sleep(0.15)
        await misdeed(pool)
        wanted = (3, 4) if verb == "update" else (1, 2)
        assert await pool.back_after_s(*wanted) < 2 * SOON_S


@anyhow
async def test_again_and_again(api: LocalApi, misdeed: Callable[[Pool], Awaitable[None]]) -> None:
    async with running(api) as pool:
        for _ in range(20):
            await misdeed(pool)
            assert await pool.back_after_s(1, 2) < SOON_S


@anyhow
@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.005, 0.01, 0.012, 0.02, 0.05])
async def test_at_any_moment_around_an_update(
    api: LocalApi, misdeed: Callable[[Pool], Awaitable[None]], delay_s: float
) -> None:
    async with running(api) as pool:
        await pool.publisher.wait_published()
        pool.publisher.desire(contents(7, 8))
        await asyncio.sleep(delay_s)
        await misdeed(pool)
        assert await pool.back_after_s(7, 8) < SOON_S


async def test_a_wipe_that_no_watch_has_seen(api: LocalApi) -> None:
    async with running(api) as pool:
        await pool.publisher.wait_published()
        broken = api.store.faults.add(Fault(verb="watch", resource=SLICES, status=500))
        await asyncio.sleep(400.0)
        await pool.wipe()
        api.store.faults.remove(broken)
        assert await pool.back_after_s(1, 2, look_each_s=0.1) < 60.0
