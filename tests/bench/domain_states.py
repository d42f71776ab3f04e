"""What ComputeDomains have come to, for those who wait. No time limit: machines are busy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nvdra_api.domains import READY
from nvdra_operator.resources import COMPUTE_DOMAINS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nvdra_testing.compute_domains import DomainCluster


async def all_ready(it: DomainCluster, count: int) -> None:
    """Return when so many domains say that they are."""

    async def ready() -> bool:
        bodies = await it.everything(COMPUTE_DOMAINS)
        statuses = [(one.get("status") or {}).get("status") for one in bodies]
        return statuses.count(READY) == count

    await until(ready)


async def all_gone(it: DomainCluster) -> None:
    async def gone() -> bool:
        return not await it.everything(COMPUTE_DOMAINS)

    await until(gone)


async def until(probe: Callable[[], Awaitable[bool]]) -> None:
    while not await probe():
        await asyncio.sleep(0.02)
