"""Many ComputeDomains at once on the real API server: until the last is complete, and gone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.product.controllers import controller_calls
from tests.e2e.product.domains import a_domain
from tests.e2e.product.release import NAMESPACE

from nvdra_api.names import FINALIZER_COMPUTE_DOMAIN
from nvdra_kube.informer import Informer
from nvdra_kube.resources import NAMESPACES, RESOURCE_CLAIM_TEMPLATES
from nvdra_kube.session import KubeSession
from nvdra_operator.resources import COMPUTE_DOMAINS, DAEMON_SETS

from .figures import medians, progress, rounded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from tests.e2e.product.release import Product

    from nvdra_kube.api import Body, KubeApi

_HOME: Final = "bench-domains"
_PATIENCE_S: Final = 300.0
_SETTLE_S: Final = 3.0
_OURS: Final = frozenset({COMPUTE_DOMAINS.plural, DAEMON_SETS.plural, "resourceclaimtemplates"})
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})
_Calls = Counter[tuple[str, str, str]]


async def measure(product: Product, *, count: int, rounds: int) -> dict[str, Any]:
    """`count` domains without nodes. Calls are those of the API server's own metrics."""
    plane = product.cluster.control_plane
    ca_pem, token = plane.credentials.ca.read_text(), plane.credentials.tokens["admin"]
    async with KubeSession.connect(plane.server, ca_pem=ca_pem, token=token) as api:
        await api.create(NAMESPACES, {"metadata": {"name": _HOME}})
        found = []
        for number in range(rounds):
            progress(f"{count} domains, {number + 1} of {rounds}")
            async with _looking(api) as look:
                found.append(await _round(product, api, look, count))
        await api.delete(NAMESPACES, _HOME)
        return medians(found)


class _Look:
    """Current copies of what a domain consists of; `until` waits for changes only."""

    def __init__(self, api: KubeApi) -> None:
        self._news = asyncio.Event()
        self.domains = Informer(api, COMPUTE_DOMAINS, namespace=_HOME)
        self.daemons = Informer(api, DAEMON_SETS, namespace=NAMESPACE)
        self.templates = Informer(api, RESOURCE_CLAIM_TEMPLATES)
        self.all = (self.domains, self.daemons, self.templates)
        for informer in self.all:
            informer.subscribe(lambda _: self._news.set())

    def sizes(self) -> tuple[int, ...]:
        return tuple(len(informer.items) for informer in self.all)

    def complete(self) -> int:
        return sum(_is_complete(body) for body in self.domains.items.values())

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not holds():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def _looking(api: KubeApi) -> AsyncIterator[_Look]:
    look = _Look(api)
    tasks = [asyncio.create_task(informer.run()) for informer in look.all]
    try:
        for informer in look.all:
            await informer.wait_synced()
        yield look
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_complete(domain: Body) -> bool:
    finalizers = domain["metadata"].get("finalizers") or ()
    return FINALIZER_COMPUTE_DOMAIN in finalizers and bool(domain.get("status", {}).get("status"))


async def _round(product: Product, api: KubeApi, look: _Look, count: int) -> dict[str, Any]:
    names = [f"domain-{number}" for number in range(count)]
    bodies = [a_domain(name, namespace=_HOME) for name in names]
    before, (_, daemons, templates) = await _calls(product), look.sizes()
    began_s = time.monotonic()
    await asyncio.gather(*(api.create(COMPUTE_DOMAINS, body) for body in bodies))
    full = (count, daemons + count, templates + 2 * count)
    await look.until(lambda: look.sizes() == full and look.complete() == count)
    made_s = time.monotonic() - began_s
    await asyncio.sleep(_SETTLE_S)
    made, began_s = await _calls(product), time.monotonic()
    await asyncio.gather(*(api.delete(COMPUTE_DOMAINS, name, namespace=_HOME) for name in names))
    await look.until(lambda: look.sizes() == (0, daemons, templates))
    gone_s = time.monotonic() - began_s
    await asyncio.sleep(_SETTLE_S)
    return {
        "complete_s": rounded(made_s),
        "made": _summary(made - before, count),
        "gone_s": rounded(gone_s),
        "deleted": _summary(await _calls(product) - made, count),
    }


def _summary(calls: _Calls, count: int) -> dict[str, Any]:
    """`writes_each` without the one that is the user's."""
    writes = {key: number for key, number in calls.items() if key[0] in _WRITES}
    return {
        "writes_each": rounded((sum(writes.values()) - count) / count),
        "conflicts": sum(number for key, number in writes.items() if key[2] == "409"),
        "lists_of_nodes": calls["list", "nodes", "200"],
        "by": {" ".join(key): number for key, number in sorted(writes.items())},
    }


async def _calls(product: Product) -> _Calls:
    """Writes of what is ours, by whomever, and the controllers' own calls."""
    return await asyncio.to_thread(lambda: _served(product) + controller_calls(product))


def _served(product: Product) -> _Calls:
    found: _Calls = Counter()
    for family in text_string_to_metric_families(product.kubectl("get", "--raw", "/metrics")):
        for sample in family.samples:
            if sample.name == "apiserver_request_total" and _is_ours(sample.labels):
                labels = sample.labels
                found[labels["verb"], labels["resource"], labels["code"]] += int(sample.value)
    return found


def _is_ours(labels: Mapping[str, str]) -> bool:
    """The status of a DaemonSet is its controller's affair."""
    what = labels["resource"], labels["subresource"]
    return what[0] in _OURS and what != (DAEMON_SETS.plural, "status")
