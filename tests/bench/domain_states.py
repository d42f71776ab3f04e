"""ComputeDomains whose nodes are played, and what they have come to, for those who wait.

There is no time limit: machines are busy.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from nvdra_api.domains import READY
from nvdra_operator.resources import COMPUTE_DOMAINS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nvdra_kube.api import Body
    from nvdra_testing.compute_domains import DomainCluster

NODES_PER_CLIQUE: Final = 18


async def join_all(it: DomainCluster, uid: str, names: Sequence[str]) -> list[Body]:
    """Nodes of these names, in cliques of 18, whose daemons become ready; answers their pods."""
    pods = []
    for number, name in enumerate(names):
        await it.join(name, uid, clique=f"clique.{number // NODES_PER_CLIQUE}")
        pods.append(await it.daemon(name, uid))
    for ready in (False, True):
        for number, pod in enumerate(pods):
            await it.report(pod, ip=f"10.0.{number >> 8}.{number & 255}", ready=ready)
    return pods


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
