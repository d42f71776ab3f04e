"""Background deletion: objects whose owners are all gone follow them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import EVENTS
from nvdra_sim.cluster.controllers.kinds import built_in
from nvdra_sim.cluster.controllers.ownership import is_dying, owners_of, uid_of
from nvdra_sim.cluster.controllers.workqueue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nvdra_kube.api import Body, KubeApi, Resource
    from nvdra_kube.informer import Change, Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers


class GarbageCollector:
    """One queue per resource that can have owners; keyed by object.

    Owners of kinds that are not collected here count as alive.
    """

    def __init__(
        self,
        api: KubeApi,
        informers: SharedInformers,
        *,
        resources: Iterable[Resource] | None = None,
    ) -> None:
        self._api = api
        self._dependents: defaultdict[str, set[tuple[Resource, Key]]] = defaultdict(set)
        if resources is None:
            resources = [resource for resource in built_in() if resource != EVENTS]
        resources = list(resources)
        self._by_kind = {(r.api_version, r.kind): r for r in resources}
        self._items = {resource: informers.of(resource).items for resource in resources}
        self._queues = {resource: self._collector(resource, informers) for resource in resources}

    @property
    def queues(self) -> list[WorkQueue]:
        return list(self._queues.values())

    def _collector(self, resource: Resource, informers: SharedInformers) -> WorkQueue:
        async def reconcile(key: Key) -> None:
            await self._collect(resource, key)

        informers.of(resource).subscribe(lambda change: self._changed(resource, change))
        return WorkQueue(f"garbage collector: {resource.plural}", reconcile)

    def _changed(self, resource: Resource, change: Change) -> None:
        owners = owners_of(change.object)
        if change.type == "deleted":
            for owner in owners:
                self._dependents[owner["uid"]].discard((resource, change.key))
            for dependent, key in self._dependents.pop(uid_of(change.object), ()):
                self._queues[dependent].add(key)
            return
        for owner in owners:
            self._dependents[owner["uid"]].add((resource, change.key))
        if owners and not is_dying(change.object):
            self._queues[resource].add(change.key)

    async def _collect(self, resource: Resource, key: Key) -> None:
        body = self._items[resource].get(key)
        if body is None or is_dying(body) or not owners_of(body):
            return
        for owner in owners_of(body):
            if await self._is_alive(owner, key[0]):
                return
        try:
            await self._api.delete(resource, key[1], namespace=key[0] or None, uid=uid_of(body))
        except NotFound:
            return

    async def _is_alive(self, owner: Body, namespace: str) -> bool:
        resource = self._by_kind.get((owner["apiVersion"], owner["kind"]))
        if resource is None:
            return True
        key = (namespace if resource.namespaced else "", owner["name"])
        seen = self._items[resource].get(key)
        if seen is not None and uid_of(seen) == owner["uid"]:
            return True
        try:
            found = await self._api.get(
                resource, owner["name"], namespace=namespace if resource.namespaced else None
            )
        except NotFound:
            return False
        return bool(uid_of(found) == owner["uid"])
