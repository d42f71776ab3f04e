"""Pods that a workload made from its template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import PODS
from nvdra_sim.cluster.controllers.ownership import (
    controller_of,
    controller_reference,
    is_controlled_by,
    is_dying,
    key_of,
    uid_of,
)

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable

    from nvdra_kube.api import Body, KubeApi, Resource
    from nvdra_kube.informer import Change, Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers


class OwnedPods:
    """Lists, makes and deletes the pods of workloads of one kind."""

    def __init__(self, api: KubeApi, resource: Resource) -> None:
        self._api = api
        self._resource = resource

    async def list(self, owner: Body) -> list[Body]:
        """Pods that the workload controls, oldest first; read from the server, not a cache."""
        namespace = owner["metadata"]["namespace"]
        pods = (await self._api.list(PODS, namespace=namespace))["items"]
        mine = [pod for pod in pods if is_controlled_by(pod, owner)]
        return sorted(mine, key=lambda pod: (pod["metadata"]["creationTimestamp"], key_of(pod)))

    async def create(self, owner: Body, template: Body) -> Body:
        namespace, name = key_of(owner)
        given = template.get("metadata") or {}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": f"{name}-",
                "namespace": namespace,
                "labels": given.get("labels") or {},
                "annotations": given.get("annotations") or {},
                "ownerReferences": [controller_reference(owner, self._resource)],
            },
            "spec": template["spec"],
        }
        return await self._api.create(PODS, pod, namespace=namespace)

    async def create_some(self, count: int, owner: Body, template: Body) -> builtins.list[Body]:
        """None for a count below 1."""
        return [await self.create(owner, template) for _ in range(count)]

    async def delete(self, pod: Body) -> None:
        namespace, name = key_of(pod)
        try:
            await self._api.delete(PODS, name, namespace=namespace, uid=uid_of(pod))
        except NotFound:
            return


def wake_owner(informers: SharedInformers, resource: Resource, add: Callable[[Key], None]) -> None:
    """Call `add` with the owner of each pod that changes, where it is of this kind."""

    def pod_changed(change: Change) -> None:
        owner = controller_of(change.object)
        if owner is not None and owner["kind"] == resource.kind:
            add((change.key[0], owner["name"]))

    informers.of(PODS).subscribe(pod_changed)


def phase_of(pod: Body) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def is_active(pod: Body) -> bool:
    """Counts as one of the pods that are wanted."""
    return phase_of(pod) not in ("Succeeded", "Failed") and not is_dying(pod)


def is_ready(pod: Body) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
