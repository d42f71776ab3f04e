"""Empties a namespace that is being deleted, then lets it go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import NAMESPACES, PODS, RESOURCE_CLAIMS
from nvdra_sim.cluster.controllers.kinds import served
from nvdra_sim.cluster.controllers.ownership import is_dying, key_of, uid_of
from nvdra_sim.cluster.controllers.workqueue import WorkQueue

if TYPE_CHECKING:
    from nvdra_kube.api import Body, KubeApi, Resource
    from nvdra_kube.informer import Change, Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers

_FINALIZER: Final = "kubernetes"
# For what goes away unseen; pods and claims, which take their time, wake the controller.
_LOOK_AGAIN_S: Final = 1.0


class Namespaces:
    """Keyed by namespace."""

    def __init__(self, api: KubeApi, informers: SharedInformers) -> None:
        self._api = api
        self._namespaces = informers.of(NAMESPACES)
        self.queue = WorkQueue("namespaces", self.reconcile)
        self._namespaces.subscribe(self._namespace_changed)
        for resource in (PODS, RESOURCE_CLAIMS):
            informers.of(resource).subscribe(self._content_changed)

    def _namespace_changed(self, change: Change) -> None:
        if change.type != "deleted" and is_dying(change.object):
            self.queue.add(change.key)

    def _content_changed(self, change: Change) -> None:
        key = ("", change.key[0])
        namespace = self._namespaces.items.get(key)
        if change.type == "deleted" and namespace is not None and is_dying(namespace):
            self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        try:
            namespace = await self._api.get(NAMESPACES, key[1])
        except NotFound:
            return
        if not is_dying(namespace):
            return
        left = 0
        for resource in await served(self._api):
            if resource.namespaced:
                left += await self._empty(resource, key[1])
        if left:
            self.queue.add_after(key, delay_s=_LOOK_AGAIN_S)
        else:
            await self._finalize(namespace)

    async def _empty(self, resource: Resource, namespace: str) -> int:
        """Delete all objects of the resource and count those that are still there."""
        for body in (await self._api.list(resource, namespace=namespace))["items"]:
            if not is_dying(body):
                await self._delete(resource, body)
        return len((await self._api.list(resource, namespace=namespace))["items"])

    async def _delete(self, resource: Resource, body: Body) -> None:
        namespace, name = key_of(body)
        try:
            await self._api.delete(resource, name, namespace=namespace, uid=uid_of(body))
        except NotFound:
            return

    async def _finalize(self, namespace: Body) -> None:
        spec = namespace.get("spec") or {}
        finalizers = [f for f in spec.get("finalizers") or [] if f != _FINALIZER]
        namespace["spec"] = {**spec, "finalizers": finalizers}
        await self._api.update(NAMESPACES, namespace, subresource="finalize")
