"""From the request that makes a pod to the status that says Running, with and without a claim."""

from __future__ import annotations

import asyncio
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.ring.objects import a_gpu_pod, a_gpu_template, a_pod

from nvdra_kube.resources import PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from nvdra_kube.session import KubeSession

from .figures import percentile, progress, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.e2e.ring.cluster import RealCluster

    from nvdra_kube.api import Body, KubeApi

_NAMESPACE: Final = "default"
_PATIENCE_S: Final = 180.0
_MINIMAL_PLUGIN_S: Final = 0.7
"""What a pod with a claim took on a ring like this with a plugin that does next to nothing."""


async def measure(cluster: RealCluster, *, rounds: int) -> dict[str, Any]:
    """Pods in turn, plain and with a claim, each alone on the node; the first pair warms up."""
    credentials = cluster.control_plane.credentials
    ca_pem, token = credentials.ca.read_text(), credentials.tokens["admin"]
    async with KubeSession.connect(cluster.control_plane.server, ca_pem=ca_pem, token=token) as api:
        await api.create(RESOURCE_CLAIM_TEMPLATES, a_gpu_template(namespace=_NAMESPACE))
        plain, claimed = [], []
        for number in range(rounds + 1):
            progress(f"pods {number} of {rounds}")
            plain.append(await _running_s(api, _pod(a_pod, f"plain-{number}")))
            claimed.append(await _running_s(api, _pod(a_gpu_pod, f"claim-{number}")))
    return _document(plain[1:], claimed[1:])


def _document(plain: Sequence[float], claimed: Sequence[float]) -> dict[str, Any]:
    return {
        "with_claim_s": _summary(claimed),
        "without_claim_s": _summary(plain),
        "ratio_of_medians": rounded(median(claimed) / median(plain)),
        "median_of_differences_s": rounded(
            median(more - less for less, more in zip(plain, claimed, strict=True))
        ),
        "with_claim_and_minimal_plugin_s": _MINIMAL_PLUGIN_S,
    }


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": rounded(median(values)),
        "p90": rounded(percentile(values, 0.9)),
        "min": rounded(min(values)),
        "max": rounded(max(values)),
    }


def _pod(make: Callable[..., Body], name: str) -> Body:
    return make(name, "sleep", "infinity", namespace=_NAMESPACE, node="node-2")


async def _running_s(api: KubeApi, pod: Body) -> float:
    name = pod["metadata"]["name"]
    revision = (await api.list(PODS, namespace=_NAMESPACE))["metadata"]["resourceVersion"]
    started = perf_counter()
    await api.create(PODS, pod)
    async with asyncio.timeout(_PATIENCE_S):
        async for event in api.watch(PODS, namespace=_NAMESPACE, resource_version=revision):
            told = event.object
            if told["metadata"].get("name") == name and told["status"].get("phase") == "Running":
                break
    taken_s = perf_counter() - started
    await _removed(api, name)
    return taken_s


async def _removed(api: KubeApi, name: str) -> None:
    """Delete a pod; its claim is gone, too, when this returns, so that the next finds quiet."""
    await api.delete(PODS, name, namespace=_NAMESPACE)
    async with asyncio.timeout(_PATIENCE_S):
        for resource in (PODS, RESOURCE_CLAIMS):
            while (await api.list(resource, namespace=_NAMESPACE))["items"]:
                await asyncio.sleep(0.1)
