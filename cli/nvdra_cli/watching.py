"""Following a cluster's pods and ComputeDomains until they are well, or waiting is pointless."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Self

from nvdra_cli.domains import COMPUTE_DOMAINS, DomainView, domain_views, is_daemon
from nvdra_cli.pods import ClusterView, PodView, missing_pods, pod_views
from nvdra_kube.api import Resource
from nvdra_kube.informer import Informer
from nvdra_kube.resources import EVENTS, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nvdra_cli.pods import Key
    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.informer import Change

WORKLOADS = (
    Resource("apps", "v1", "deployments", "Deployment"),
    Resource("apps", "v1", "replicasets", "ReplicaSet"),
    Resource("batch", "v1", "jobs", "Job"),
)

QUIET_S = 3.0
"""Nothing changed for so long: what does not run by now has a reason that will not pass."""

RETRIES_S = 12.0
"""The same where the kubelet tries again: two of its rounds."""

CALM_S = 0.3
"""All pods have run, or failed for good, for so long: none has crashed right after its start."""

ENDING_S = 1.0
"""The same where a container may end by itself: the short ones do so within this time."""


FORMING_S = 7.0
"""Pods run, but their ComputeDomain is not ready: two questions to its daemons."""


class ClusterWatch:
    """Mirrors pods, ComputeDomains and what explains them; an async context manager.

    `on_pod` and `on_domain` are called with each that looks different than before.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        on_pod: Callable[[PodView], None],
        on_domain: Callable[[DomainView], None],
    ) -> None:
        self._pods = Informer(api, PODS)
        self._claims = Informer(api, RESOURCE_CLAIMS)
        self._slices = Informer(api, RESOURCE_SLICES)
        self._events = Informer(api, EVENTS)
        self._workloads = [Informer(api, resource) for resource in WORKLOADS]
        self._domains = Informer(api, COMPUTE_DOMAINS)
        self._on_pod, self._on_domain = on_pod, on_domain
        self._known: dict[Key, PodView] = {}
        self._known_domains: dict[Key, DomainView] = {}
        self._allocated: dict[Key, Body] = {}
        self._changed = asyncio.Event()
        self._changed_s = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self.running_since_s: dict[Key, float] = {}

    async def __aenter__(self) -> Self:
        self._claims.subscribe(self._remember_allocation)
        mirrors = (self._pods, self._claims, self._slices, self._events, self._domains)
        informers = [*mirrors, *self._workloads]
        for informer in informers:
            informer.subscribe(lambda _: self._changed.set())
            self._tasks.append(asyncio.create_task(informer.run(), name=f"watch {informer!r}"))
        for informer in informers:
            await informer.wait_synced()
        self._changed.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def pods(self) -> list[PodView]:
        """The user's pods as they are now; those that ended, with the devices that they had."""
        return self._look()[0]

    def domains(self) -> list[DomainView]:
        """All ComputeDomains as they are now, each with its daemons."""
        return self._look()[1]

    def _look(self) -> tuple[list[PodView], list[DomainView]]:
        pods = [(self._pods.items[view.key], view) for view in pod_views(self._view())]
        daemons = [(pod, view) for pod, view in pods if is_daemon(pod)]
        users = [view for pod, view in pods if not is_daemon(pod)]
        return users, domain_views(self._domains.items, daemons)

    def missing_pods(self) -> int:
        """How many pods controllers still have to make."""
        return missing_pods(self._view())

    async def until_settled(self, *, timeout_s: float) -> None:
        """Return when all is well, when waiting cannot help, or when the time is over."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            pods, domains = self._look()
            self._announce(pods, domains)
            quiet_s = time.monotonic() - self._changed_s
            patience_s = wait_s(pods, domains, missing=self.missing_pods() > 0)
            if quiet_s >= patience_s:
                return
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, patience_s - quiet_s)):
                    await self._changed.wait()
        self._announce(*self._look())

    def _announce(self, pods: list[PodView], domains: list[DomainView]) -> None:
        now_s = time.monotonic()
        for pod in pods:
            if self._known.get(pod.key) == pod:
                continue
            self._known[pod.key] = pod
            self._changed_s = now_s
            if pod.runs:
                self.running_since_s.setdefault(pod.key, now_s)
            self._on_pod(pod)
        for domain in domains:
            if self._known_domains.get(domain.key) != domain:
                self._known_domains[domain.key] = domain
                self._changed_s = now_s
                self._on_domain(domain)

    def _remember_allocation(self, change: Change) -> None:
        if change.object.get("status", {}).get("allocation"):
            self._allocated[change.key] = change.object

    def _view(self) -> ClusterView:
        workloads = {
            (resource.kind, *key): body
            for resource, informer in zip(WORKLOADS, self._workloads, strict=True)
            for key, body in informer.items.items()
        }
        return ClusterView(
            pods=self._pods.items,
            claims=self._claims.items,
            allocated_claims=self._allocated,
            slices=self._slices.items,
            events=self._events.items,
            workloads=workloads,
        )


def wait_s(pods: Sequence[PodView], domains: Sequence[DomainView] = (), *, missing: bool) -> float:
    """How long nothing may change before all of it counts as settled; infinite if it must.

    `missing`: some pods are still to be made.
    """
    forming = [domain for domain in domains if not domain.is_ready]
    domains_s = max((FORMING_S if each.takes_part else QUIET_S for each in forming), default=0.0)
    return max(_pods_s(pods, missing=missing), domains_s)


def _pods_s(pods: Sequence[PodView], *, missing: bool) -> float:
    may_end = any(pod.phase == "Running" and pod.ends_by_itself for pod in pods)
    if pods and not missing and all(pod.runs or pod.is_final for pod in pods):
        return ENDING_S if may_end else CALM_S
    if not all(pod.runs or pod.reason for pod in pods):
        return float("inf")
    if may_end and any(pod.phase == "Pending" for pod in pods):
        # One that ends gives its devices back, and another may get them.
        return float("inf")
    return RETRIES_S if any(pod.is_retried for pod in pods) else QUIET_S
