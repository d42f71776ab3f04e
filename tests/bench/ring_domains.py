"""Many ComputeDomains at once on the real API server: until the last is complete, and gone."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.product.controllers import controller_calls
from tests.e2e.product.domains import a_domain

from nvdra_kube.resources import NAMESPACES
from nvdra_kube.session import KubeSession
from nvdra_operator.resources import COMPUTE_DOMAINS

from .domain_objects import (
    SETTLE_S,
    Calls,
    DomainObjects,
    domain_objects,
    only_writes,
    served_calls,
)
from .figures import medians, progress, rounded

if TYPE_CHECKING:
    from tests.e2e.product.release import Product

    from nvdra_kube.api import KubeApi

_HOME: Final = "bench-domains"


async def measure(product: Product, *, count: int, rounds: int) -> dict[str, Any]:
    """`count` domains without nodes. Calls are those of the API server's own metrics."""
    plane = product.cluster.control_plane
    ca_pem, token = plane.credentials.ca.read_text(), plane.credentials.tokens["admin"]
    async with KubeSession.connect(plane.server, ca_pem=ca_pem, token=token) as api:
        await api.create(NAMESPACES, {"metadata": {"name": _HOME}})
        found = []
        for number in range(rounds):
            progress(f"{count} domains, {number + 1} of {rounds}")
            async with domain_objects(api, namespace=_HOME) as objects:
                found.append(await _round(product, api, objects, count))
        await api.delete(NAMESPACES, _HOME)
        return medians(found)


async def _round(
    product: Product, api: KubeApi, objects: DomainObjects, count: int
) -> dict[str, Any]:
    names = [f"domain-{number}" for number in range(count)]
    bodies = [a_domain(name, namespace=_HOME) for name in names]
    before, (_, daemons, templates) = await _calls(product), objects.sizes()
    began_s = time.monotonic()
    await asyncio.gather(*(api.create(COMPUTE_DOMAINS, body) for body in bodies))
    full = (count, daemons + count, templates + 2 * count)
    await objects.until(lambda: objects.sizes() == full and objects.complete() == count)
    made_s = time.monotonic() - began_s
    await asyncio.sleep(SETTLE_S)
    made, began_s = await _calls(product), time.monotonic()
    await asyncio.gather(*(api.delete(COMPUTE_DOMAINS, name, namespace=_HOME) for name in names))
    await objects.until(lambda: objects.sizes() == (0, daemons, templates))
    gone_s = time.monotonic() - began_s
    await asyncio.sleep(SETTLE_S)
    return {
        "complete_s": rounded(made_s),
        "made": _summary(made - before, count),
        "gone_s": rounded(gone_s),
        "deleted": _summary(await _calls(product) - made, count),
    }


def _summary(calls: Calls, count: int) -> dict[str, Any]:
    """`writes_each` without the one that is the user's."""
    writes = only_writes(calls)
    return {
        "writes_each": rounded((writes.total() - count) / count),
        "conflicts": sum(number for key, number in writes.items() if key[2] == "409"),
        "lists_of_nodes": calls["list", "nodes", "200"],
        "by": {" ".join(key): number for key, number in sorted(writes.items())},
    }


async def _calls(product: Product) -> Calls:
    """Writes of what is ours, by whomever, and the controllers' own calls."""
    served = await asyncio.to_thread(product.kubectl, "get", "--raw", "/metrics")
    return served_calls(served) + await asyncio.to_thread(controller_calls, product)
