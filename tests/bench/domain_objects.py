"""What domains without nodes consist of on the real API server, and the calls that it takes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families

from nvdra_api.names import FINALIZER_COMPUTE_DOMAIN, NAMESPACE
from nvdra_kube.informer import Informer
from nvdra_kube.resources import RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from nvdra_kube.api import Body, KubeApi

# Verb, resource and status code.
Calls = Counter[tuple[str, str, str]]

SETTLE_S: Final = 3.0
_PATIENCE_S: Final = 300.0
_OURS: Final = frozenset(
    each.plural for each in (COMPUTE_DOMAINS, DAEMON_SETS, RESOURCE_CLAIM_TEMPLATES, CLIQUES)
)
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})


class DomainObjects:
    """Current copies; `until` waits for changes only."""

    def __init__(self, api: KubeApi, *, namespace: str) -> None:
        """`namespace` is that of the domains."""
        self._news = asyncio.Event()
        self.domains = Informer(api, COMPUTE_DOMAINS, namespace=namespace)
        self.daemons = Informer(api, DAEMON_SETS, namespace=NAMESPACE)
        self.templates = Informer(api, RESOURCE_CLAIM_TEMPLATES)
        self.all = (self.domains, self.daemons, self.templates)
        for informer in self.all:
            informer.subscribe(lambda _: self._news.set())

    def sizes(self) -> tuple[int, ...]:
        return tuple(len(informer.items) for informer in self.all)

    def complete(self) -> int:
        """How many domains have all that the controller gives them."""
        return sum(_is_complete(body) for body in self.domains.items.values())

    async def until(self, holds: Callable[[], bool]) -> float:
        """When that was, on the steady clock."""
        async with asyncio.timeout(_PATIENCE_S):
            while not holds():
                self._news.clear()
                await self._news.wait()
        return time.monotonic()


def _is_complete(domain: Body) -> bool:
    finalizers = domain["metadata"].get("finalizers") or ()
    return FINALIZER_COMPUTE_DOMAIN in finalizers and bool(domain.get("status", {}).get("status"))


@asynccontextmanager
async def domain_objects(api: KubeApi, *, namespace: str) -> AsyncIterator[DomainObjects]:
    """Copies that are there, and are kept."""
    objects = DomainObjects(api, namespace=namespace)
    tasks = [asyncio.create_task(informer.run()) for informer in objects.all]
    try:
        for informer in objects.all:
            await informer.wait_synced()
        yield objects
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def served_calls(metrics: str) -> Calls:
    """Calls for objects of domains, by whomever, out of what an API server tells of itself."""
    found: Calls = Counter()
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "apiserver_request_total" and _is_ours(sample.labels):
                labels = sample.labels
                found[labels["verb"], labels["resource"], labels["code"]] += int(sample.value)
    return found


def _is_ours(labels: Mapping[str, str]) -> bool:
    """The status of a DaemonSet is its controller's affair."""
    what = labels["resource"], labels["subresource"]
    return what[0] in _OURS and what != (DAEMON_SETS.plural, "status")


def only_writes(calls: Calls) -> Calls:
    return Counter({key: number for key, number in calls.items() if key[0] in _WRITES})
