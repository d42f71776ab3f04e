"""Following a cluster's pods until they run, or until waiting longer is pointless."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from nvdra_cli.pods import ClusterView, PodView, missing_pods, pod_views
from nvdra_kube.api import Resource
from nvdra_kube.informer import Informer
from nvdra_kube.resources import EVENTS, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_cli.pods import Key
    from nvdra_kube.api import KubeApi

WORKLOADS = (
    Resource("apps", "v1", "deployments", "Deployment"),
    Resource("apps", "v1", "replicasets", "ReplicaSet"),
    Resource("batch", "v1", "jobs", "Job"),
)

QUIET_S = 3.0
"""Nothing changed for so long: what does not run by now has a reason that will not pass."""


class PodWatch:
    """Mirrors pods and what explains them; an async context manager.

    `on_change` is called with every pod whose phase, node, devices or reason changed.
    """

    def __init__(self, api: KubeApi, *, on_change: Callable[[PodView], None]) -> None:
        self._pods = Informer(api, PODS)
        self._claims = Informer(api, RESOURCE_CLAIMS)
        self._slices = Informer(api, RESOURCE_SLICES)
        self._events = Informer(api, EVENTS)
        self._workloads = [Informer(api, resource) for resource in WORKLOADS]
        self._on_change = on_change
        self._known: dict[Key, PodView] = {}
        self._changed = asyncio.Event()
        self._changed_s = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self.running_since_s: dict[Key, float] = {}

    async def __aenter__(self) -> Self:
        informers = [self._pods, self._claims, self._slices, self._events, *self._workloads]
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
        """All pods as they are now."""
        return pod_views(self._view())

    async def until_settled(self, *, timeout_s: float) -> None:
        """Return when all pods run, when waiting cannot help, or when the time is over."""
        deadline = time.monotonic() + timeout_s
        while not self._settled() and (left_s := deadline - time.monotonic()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left_s, QUIET_S)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _settled(self) -> bool:
        pods = self.pods()
        self._announce(pods)
        if missing_pods(self._view()) == 0 and pods and all(pod.runs for pod in pods):
            return True
        return (
            self._is_quiet()
            and all(pod.runs or pod.reason for pod in pods)
            and not any(pod.phase == "Running" and pod.ends_by_itself for pod in pods)
        )

    def _is_quiet(self) -> bool:
        return time.monotonic() - self._changed_s >= QUIET_S

    def _announce(self, pods: list[PodView]) -> None:
        now_s = time.monotonic()
        for pod in pods:
            if self._known.get(pod.key) == pod:
                continue
            self._known[pod.key] = pod
            self._changed_s = now_s
            if pod.runs:
                self.running_since_s.setdefault(pod.key, now_s)
            self._on_change(pod)

    def _view(self) -> ClusterView:
        workloads = {
            (resource.kind, *key): body
            for resource, informer in zip(WORKLOADS, self._workloads, strict=True)
            for key, body in informer.items.items()
        }
        return ClusterView(
            pods=self._pods.items,
            claims=self._claims.items,
            slices=self._slices.items,
            events=self._events.items,
            workloads=workloads,
        )
