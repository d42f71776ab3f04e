"""Local copies of everything that belongs to ComputeDomains, found by the domain's UID.

Nothing of the cluster is read that does not bear the domain label, but the domains themselves.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from nvdra_api.names import LABEL_COMPUTE_DOMAIN
from nvdra_kube.informer import Informer
from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.objects import workload_template_name
from nvdra_operator.domains.scene import Obstacle, Scene, domain_of
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from nvdra_kube.api import Body, KubeApi, Resource
    from nvdra_kube.informer import Change, Key
    from nvdra_operator.settings import DriverSettings

_POD_STATUS: Final = ("phase", "podIP", "conditions", "containerStatuses")
_META: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
)


class _ByDomain:
    """Objects of one resource by the UID of their domain."""

    def __init__(self, informer: Informer, wake: Callable[[str], None]) -> None:
        self._informer = informer
        self._wake = wake
        self._objects: dict[str, dict[Key, Body]] = {}
        informer.subscribe(self._changed)

    def of(self, uid: str) -> tuple[Body, ...]:
        return tuple(self._objects.get(uid, {}).values())

    def uids(self) -> Iterable[str]:
        return self._objects.keys()

    def _changed(self, change: Change) -> None:
        before = domain_of(change.old) if change.old else ""
        after = "" if change.type == "deleted" else domain_of(change.object)
        if before and before != after:
            self._objects.get(before, {}).pop(change.key, None)
            if not self._objects.get(before):
                self._objects.pop(before, None)
        if after:
            self._objects.setdefault(after, {})[change.key] = change.object
        for uid in {before, after} - {""}:
            self._wake(uid)


class Mirror:
    """`run` belongs to a task. `on_domain` and `on_object` are called with UIDs after changes."""

    def __init__(self, api: KubeApi, settings: DriverSettings) -> None:
        self._settings = settings
        self._domains: dict[str, Body] = {}
        self._informers: dict[Resource, list[Informer]] = {}
        self._indexes: dict[Resource, list[_ByDomain]] = {}
        self._on_domain: list[Callable[[str], None]] = []
        self._on_object: list[Callable[[str], None]] = []
        self._add(api, COMPUTE_DOMAINS).subscribe(self._domain_changed)
        self._follow(api, RESOURCE_CLAIM_TEMPLATES)
        if settings.host_managed:
            # Where the hosts run the daemons there are no other objects, nor rights to see them.
            return
        self._follow(api, NODES, keep=trimmed_node)
        for namespace in settings.namespaces:
            self._follow(api, DAEMON_SETS, namespace=namespace)
            self._follow(api, PODS, namespace=namespace, keep=trimmed_pod)
            self._follow(api, CLIQUES, namespace=namespace)

    def subscribe(
        self, *, on_domain: Callable[[str], None], on_object: Callable[[str], None]
    ) -> None:
        """Call `on_domain` when a domain changed, `on_object` when something that is its did."""
        self._on_domain.append(on_domain)
        self._on_object.append(on_object)

    async def run(self) -> None:
        """Keep the copies current until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self.informers():
                group.create_task(informer.run(), name=repr(informer))

    async def wait_synced(self) -> None:
        for informer in self.informers():
            await informer.wait_synced()

    @property
    def has_synced(self) -> bool:
        return all(informer.has_synced for informer in self.informers())

    @property
    def last_turn_s(self) -> float:
        """When the informer that was silent for longest was last heard of: the loop's clock."""
        return min(informer.last_turn_s for informer in self.informers())

    def informers(self) -> Iterator[Informer]:
        for informers in self._informers.values():
            yield from informers

    def domain(self, uid: str) -> Body | None:
        return self._domains.get(uid)

    def domains(self) -> dict[str, Body]:
        return dict(self._domains)

    def look(self, resource: Resource, key: Key) -> Body | None:
        """The object as the copy has it."""
        for informer in self._informers.get(resource, ()):
            if (body := informer.items.get(key)) is not None:
                return body
        return None

    def strangers(self) -> set[str]:
        """UIDs that objects bear and no known domain has."""
        uids = {uid for many in self._indexes.values() for one in many for uid in one.uids()}
        return uids - self._domains.keys()

    def scene(self, uid: str, *, obstacles: Iterable[Obstacle] = ()) -> Scene:
        """All that is known about a domain; one that is gone is left with its UID only."""
        domain = self._domains.get(uid) or {"metadata": {"uid": uid}}
        found = {str(one): one for one in (*obstacles, *self._namesakes(domain))}
        return Scene(
            domain=domain,
            templates=self._of(RESOURCE_CLAIM_TEMPLATES, uid),
            daemon_sets=self._of(DAEMON_SETS, uid),
            nodes=self._of(NODES, uid),
            pods=self._of(PODS, uid),
            cliques=self._of(CLIQUES, uid),
            obstacles=tuple(found.values()),
        )

    def _namesakes(self, domain: Body) -> Iterator[Obstacle]:
        """A claim template of another domain that has the name which this one wants."""
        meta, name = domain["metadata"], workload_template_name(domain)
        namespace = meta.get("namespace") or ""
        other = self.look(RESOURCE_CLAIM_TEMPLATES, (namespace, name)) if name else None
        if other is not None and (uid := domain_of(other)) and uid != meta["uid"]:
            owner = self._domains.get(uid)
            whose = f"ComputeDomain {owner['metadata']['name'] if owner else uid}"
            yield Obstacle(RESOURCE_CLAIM_TEMPLATES.kind, namespace, name, whose)

    def _of(self, resource: Resource, uid: str) -> tuple[Body, ...]:
        return tuple(body for index in self._indexes.get(resource, ()) for body in index.of(uid))

    def _add(self, api: KubeApi, resource: Resource, **options: Any) -> Informer:
        informer = Informer(api, resource, **options)
        self._informers.setdefault(resource, []).append(informer)
        return informer

    def _follow(self, api: KubeApi, resource: Resource, **options: Any) -> None:
        informer = self._add(api, resource, label_selector=LABEL_COMPUTE_DOMAIN, **options)
        index = _ByDomain(informer, self._object_changed)
        self._indexes.setdefault(resource, []).append(index)

    def _domain_changed(self, change: Change) -> None:
        uid = change.object["metadata"]["uid"]
        if change.type == "deleted":
            self._domains.pop(uid, None)
        else:
            self._domains[uid] = change.object
        for callback in self._on_domain:
            callback(uid)

    def _object_changed(self, uid: str) -> None:
        for callback in self._on_object:
            callback(uid)


def trimmed_pod(pod: Body) -> Body:
    """As much of a pod as decides anything here; a thousand whole ones are 10 MiB."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    # Which node a pod is meant for counts only until it is there.
    place = ("nodeName",) if spec.get("nodeName") else ("affinity",)
    return {
        "apiVersion": pod["apiVersion"],
        "kind": pod["kind"],
        "metadata": _trimmed_meta(pod),
        "spec": {name: spec[name] for name in place if name in spec},
        "status": {name: status[name] for name in _POD_STATUS if name in status},
    }


def trimmed_node(node: Body) -> Body:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = [one for one in conditions if one.get("type") == "Ready"]
    return {
        "apiVersion": node["apiVersion"],
        "kind": node["kind"],
        "metadata": _trimmed_meta(node),
        "status": {"conditions": ready},
    }


def _trimmed_meta(body: Body) -> Body:
    meta = body["metadata"]
    return {name: meta[name] for name in _META if name in meta}
