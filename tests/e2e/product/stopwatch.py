"""How long a pod takes from its creation to Running, as one client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tests.e2e.ring.errors import RingError

from nvdra_kube.resources import PODS
from nvdra_kube.session import KubeSession

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from tests.e2e.ring.kubectl import Manifest

    from nvdra_kube.api import Body, KubeApi, WatchEvent

_DEADLINE_S = 180.0


@dataclass(frozen=True, slots=True)
class Laps:
    """Seconds of one pod after the other."""

    seconds: Sequence[float]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        least, most = min(self.seconds), max(self.seconds)
        return f"median {self.median_s:.2f} s of {len(self.seconds)} ({least:.2f} to {most:.2f})"


def time_pods(kubeconfig: Path, make: Callable[[str], Manifest], *, count: int) -> Laps:
    """Create pods one after the other, each once the one before is gone; measure creation to
    Running. The first is not counted: it pays for what is cached later.
    """
    return Laps(asyncio.run(_time_pods(kubeconfig, make, count))[1:])


async def _time_pods(kubeconfig: Path, make: Callable[[str], Manifest], count: int) -> list[float]:
    async with KubeSession.from_kubeconfig(kubeconfig) as api:
        return [await _time_pod(api, make(f"timed-{number}")) for number in range(count + 1)]


async def _time_pod(api: KubeApi, pod: Manifest) -> float:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    started = time.monotonic()
    made = await api.create(PODS, pod, namespace=namespace)
    async with asyncio.timeout(_DEADLINE_S):
        running = await _wait(api, made, lambda event: _phase(event) == "Running")
        took_s = time.monotonic() - started
        await api.delete(PODS, name, namespace=namespace, grace_period_s=1)
        await _wait(api, running, lambda event: event.type == "DELETED")
    return took_s


async def _wait(api: KubeApi, pod: Body, until: Callable[[WatchEvent], bool]) -> Body:
    """The pod as the first such event after the given state of it has it."""
    about = pod["metadata"]
    watch = api.watch(
        PODS,
        resource_version=about["resourceVersion"],
        namespace=about["namespace"],
        field_selector=f"metadata.name={about['name']}",
    )
    # The product's watches are generators, though the port asks only for an iterator.
    async with contextlib.aclosing(cast("AsyncGenerator[WatchEvent]", watch)) as events:
        async for event in events:
            if until(event):
                return event.object
    raise RingError(f"the watch of pod {about['name']} ended")


def _phase(event: WatchEvent) -> str:
    return str(event.object.get("status", {}).get("phase", ""))
