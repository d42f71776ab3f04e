"""The Node object of the embedded kubelet."""

from __future__ import annotations

import asyncio
import os
import platform
from typing import TYPE_CHECKING

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import AlreadyExists, ApiError
from nvdra_kube.resources import NODES
from nvdra_sim.cluster.kubelet.pod_status import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body, KubeApi

log = structlog.get_logger(__name__)

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_HEALTHY = {
    "MemoryPressure": "KubeletHasSufficientMemory",
    "DiskPressure": "KubeletHasNoDiskPressure",
    "PIDPressure": "KubeletHasSufficientPID",
}


def node_body(name: str, *, version: str, labels: Mapping[str, str]) -> Body:
    """A ready node of this machine's size."""
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    resources = {"cpu": str(os.cpu_count() or 1), "memory": f"{_memory_kib()}Ki", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture,
                **labels,
            },
        },
        "spec": {},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": _conditions(),
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": name},
            ],
            "nodeInfo": {
                "architecture": architecture,
                "operatingSystem": "linux",
                "kernelVersion": platform.release(),
                "kubeletVersion": version,
                "containerRuntimeVersion": "nvdra-namespaces://1",
                "osImage": "nvdra stand-in image",
            },
        },
    }


def _conditions() -> list[Body]:
    now = timestamp()
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    others = [
        {"type": kind, "status": "False", "reason": reason} for kind, reason in _HEALTHY.items()
    ]
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    return [{**condition, **times} for condition in (*others, ready)]


async def register_node(api: KubeApi, body: Body) -> None:
    """Create the Node, or bring labels and status of an existing one up to date; until done."""
    backoff = Backoff(first_s=0.2, limit_s=7.0)
    while True:
        try:
            await _write(api, body)
        except ApiError as exc:
            delay_s = backoff.failed()
            log.warning(
                "node not registered",
                node=body["metadata"]["name"], cause=exc.message, retry_s=delay_s,
            )  # fmt: skip
            await asyncio.sleep(delay_s)
        else:
            return


async def _write(api: KubeApi, body: Body) -> None:
    name, labels = body["metadata"]["name"], body["metadata"]["labels"]
    try:
        await api.create(NODES, body)
    except AlreadyExists:
        await api.patch(NODES, name, {"metadata": {"labels": labels}})
    await api.patch(NODES, name, {"status": body["status"]}, subresource="status")


def _memory_kib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
