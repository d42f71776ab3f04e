"""A control plane without kubelets in the test's own loop: store, scheduler, controllers.

The test plays the kubelet: `finish` ends a pod as one would.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import (
    DEVICE_CLASSES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
)
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.cluster.controllers import ControllerManager
from nvdra_sim.cluster.scheduler import Scheduler
from nvdra_testing.dra_objects import a_node, a_slice, nvidia_classes, some_gpus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from nvdra_kube.api import Body, Resource

_T = TypeVar("_T")

# Generous: only a test that fails ever waits so long.
_PATIENCE_S = 45.0


class ControlPlane:
    """`api` speaks to the store that the scheduler and the controllers work on."""

    def __init__(self) -> None:
        self.store = ClusterStore()
        self.api = LocalApi(self.store)

    async def add(self, resource: Resource, *bodies: Body) -> list[Body]:
        return [
            await self.api.create(resource, body, namespace=body["metadata"].get("namespace"))
            for body in bodies
        ]

    async def add_node(self, name: str = "node-a", *, gpus: int = 0, **extra: Any) -> None:
        """A ready node, with a slice when it has GPUs."""
        node = a_node(name, **extra)
        status = node.pop("status")
        created = await self.api.create(NODES, node)
        await self.api.update(NODES, {**created, "status": status}, subresource="status")
        if gpus:
            await self.add(RESOURCE_SLICES, a_slice(some_gpus(gpus), node=name))

    async def pod(self, name: str = "pod", *, namespace: str = "default") -> Body:
        return await self.api.get(PODS, name, namespace=namespace)

    async def claims(self, namespace: str = "default") -> list[Body]:
        found: list[Body] = (await self.api.list(RESOURCE_CLAIMS, namespace=namespace))["items"]
        return found

    async def node_of(self, name: str = "pod") -> str:
        """The node that the pod is bound to, once it is."""

        async def bound() -> str:
            return str((await self.pod(name))["spec"].get("nodeName", ""))

        return await self.until(bound)

    async def why_pending(self, name: str = "pod", *, but: str = "", about: str = "") -> str:
        """The scheduler's word on the pod, once it has spoken (something else than `but`, and with
        `about` in it)."""

        async def message() -> str:
            conditions = (await self.pod(name)).get("status", {}).get("conditions", [])
            texts = [c.get("message", "") for c in conditions if c["type"] == "PodScheduled"]
            return next((text for text in texts if text != but and about in text), "")

        return await self.until(message)

    async def devices_of(self, name: str = "pod") -> list[str]:
        """The devices that the bound pod holds."""
        await self.node_of(name)
        pod = await self.pod(name)
        return [
            result["device"]
            for claim in await self.claims()
            if any(
                user["uid"] == pod["metadata"]["uid"]
                for user in claim.get("status", {}).get("reservedFor", [])
            )
            for result in claim["status"]["allocation"]["devices"]["results"]
        ]

    async def finish(self, name: str = "pod", *, phase: str = "Succeeded") -> None:
        """End the pod's containers."""
        pod = await self.pod(name)
        pod["status"]["phase"] = phase
        await self.api.update(PODS, pod, subresource="status")

    async def remove(self, name: str = "pod") -> None:
        """Delete the pod as its kubelet does in the end."""
        await self.api.delete(PODS, name, namespace="default", grace_period_s=0)

    async def gone(self, resource: Resource, name: str, *, namespace: str = "default") -> None:
        async def missing() -> bool:
            try:
                await self.api.get(resource, name, namespace=namespace)
            except NotFound:
                return True
            return False

        await self.until(missing)

    async def until(self, probe: Callable[[], Awaitable[_T]]) -> _T:
        """The first true value of the probe."""
        async with asyncio.timeout(_PATIENCE_S):
            while not (value := await probe()):
                await asyncio.sleep(0.005)
        return value


@asynccontextmanager
async def control_plane(
    *, scheduler: bool = True, controllers: bool = True
) -> AsyncIterator[ControlPlane]:
    """Run it as long as the block lasts; the classes of the chart are installed."""
    plane = ControlPlane()
    await plane.add(DEVICE_CLASSES, *nvidia_classes().values())
    async with asyncio.TaskGroup() as group:
        tasks = []
        if scheduler:
            tasks.append(group.create_task(Scheduler(plane.api).run(), name="scheduler"))
        if controllers:
            tasks.append(group.create_task(ControllerManager(plane.api).run(), name="controllers"))
        try:
            yield plane
        finally:
            for task in tasks:
                task.cancel()


def a_namespace(name: str) -> Body:
    return {"apiVersion": NAMESPACES.api_version, "kind": "Namespace", "metadata": {"name": name}}
