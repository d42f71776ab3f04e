"""The objects of the simulated cluster, with the write semantics of the Kubernetes API.

Everything here is synchronous and speaks storage versions; calls come in through `Front`.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.apiserver import metadata, refusals
from nvdra_sim.cluster.apiserver.catalog import Catalog, ResourceType, TypeKey
from nvdra_sim.cluster.apiserver.checks.admin_access import admin_access_problems
from nvdra_sim.cluster.apiserver.checks.metadata import metadata_problems
from nvdra_sim.cluster.apiserver.consequences import after_commit
from nvdra_sim.cluster.apiserver.deletion import Deletion, plan_deletion
from nvdra_sim.cluster.apiserver.faults import Faults
from nvdra_sim.cluster.apiserver.gates import ServerProfile
from nvdra_sim.cluster.apiserver.history import Change, ChangeType, History, ObjectKey, Stored
from nvdra_sim.cluster.apiserver.naming import give_name, namespace_of
from nvdra_sim.cluster.apiserver.registry import rules_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.custom_resources import CustomResource
    from nvdra_sim.cluster.apiserver.fields.structural_schema import StructuralSchema
    from nvdra_sim.cluster.apiserver.rules import Rules
    from nvdra_sim.cluster.apiserver.selectors import Selector

_PERMANENT_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class _Table:
    __slots__ = ("history", "objects")

    def __init__(self, history_limit: int) -> None:
        self.objects: dict[ObjectKey, Stored] = {}
        self.history = History(history_limit)


class ClusterStore:
    """In-memory objects of one cluster; use it from one event loop only.

    `version` and `gates` say which Kubernetes this is; `history_limit` bounds how many changes per
    resource a watch may lag behind before it gets 410; `faults` injects trouble into calls.
    """

    def __init__(
        self,
        *,
        version: str = "v1.36.3",
        gates: Mapping[str, bool] | None = None,
        history_limit: int = 4096,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        seed: int | None = None,
    ) -> None:
        self.profile = ServerProfile(version, dict(gates or {}))
        self.catalog = Catalog()
        self.faults = Faults(seed=seed)
        self.revision = 0
        self._clock = clock
        self._rng = random.Random(seed)
        self._history_limit = history_limit
        self._tables: dict[TypeKey, _Table] = {}
        self._custom: dict[TypeKey, CustomResource] = {}
        self._serve_dra_versions()
        for name in _PERMANENT_NAMESPACES:
            self.create(self.catalog.at("", "v1", "namespaces"), {"metadata": {"name": name}})

    # Reading

    def get(self, kind: ResourceType, name: str, *, namespace: str = "") -> Stored:
        stored = self._table(kind).objects.get((namespace if kind.namespaced else "", name))
        if stored is None:
            raise refusals.not_found(kind, name)
        return stored

    def list(
        self, kind: ResourceType, selector: Selector | None = None, *, namespace: str = ""
    ) -> list[Stored]:
        """Matching objects in order of namespace and name; every namespace when "" is given."""
        objects = self._table(kind).objects
        found = [
            (key, stored)
            for key, stored in objects.items()
            if (not namespace or key[0] == namespace)
            and (not selector or selector.matches(stored.body))
        ]
        return [stored for _, stored in sorted(found, key=lambda item: item[0])]

    def has(self, kind: ResourceType, key: ObjectKey) -> bool:
        return key in self._table(kind).objects

    def history(self, kind: ResourceType) -> History:
        return self._table(kind).history

    def compact(self) -> None:
        """Forget the past: a watch that is not up to date gets 410, as after etcd compaction."""
        for table in self._tables.values():
            table.history.compact(self.revision)

    def now(self) -> str:
        return metadata.timestamp(self._clock())

    # Writing

    def create(
        self, kind: ResourceType, body: Body, *, namespace: str = "", dry_run: bool = False
    ) -> Stored:
        """Store a new object; `body` becomes the store's."""
        meta = metadata.metadata_of(body)
        namespace = namespace_of(kind, meta, namespace)
        if meta.get("resourceVersion"):
            raise refusals.bad_request("resourceVersion should not be set on objects to be created")
        give_name(kind, meta, taken=lambda name: self.has(kind, (namespace, name)), rng=self._rng)
        self._check_namespace(kind, meta["name"], namespace)
        metadata.start_metadata(kind, body, namespace=namespace, uid=self._uid(), now=self.now())
        body = {**body, "apiVersion": kind.api_version(kind.storage_version), "kind": kind.kind}
        self._prepare(kind, body, namespace)
        key = (namespace, meta["name"])
        if key in self._table(kind).objects:
            raise refusals.already_exists(kind, meta["name"])
        return self._commit(kind, "ADDED", key, body, None, dry_run=dry_run)

    def update(
        self,
        kind: ResourceType,
        body: Body,
        *,
        namespace: str = "",
        subresource: str = "",
        dry_run: bool = False,
    ) -> Stored:
        """Replace an object, or its status; `body` becomes the store's."""
        meta = metadata.metadata_of(body)
        namespace = namespace_of(kind, meta, namespace)
        if not meta.get("name"):
            raise refusals.bad_request("metadata.name: Required value: name must be provided")
        old = self.get(kind, meta["name"], namespace=namespace)
        if not meta.get("resourceVersion") and not kind.unconditional_update:
            message = "Invalid value: 0x0: must be specified for an update"
            problem = refusals.Problem("metadata.resourceVersion", "FieldValueInvalid", message)
            raise refusals.invalid(kind, meta["name"], [problem])
        metadata.carry_metadata(kind, body, old.body)
        body["apiVersion"], body["kind"] = old.body["apiVersion"], old.body["kind"]
        self._settle(kind, body, old.body, subresource)
        return self.replace(kind, body, old, dry_run=dry_run)

    def delete(
        self,
        kind: ResourceType,
        name: str,
        *,
        namespace: str = "",
        deletion: Deletion | None = None,
        dry_run: bool = False,
    ) -> tuple[Stored, bool]:
        """Delete, or start to: the last state, and whether the object is gone."""
        old = self.get(kind, name, namespace=namespace)
        deletion = deletion or Deletion()
        metadata.check_preconditions(
            kind, old.body, uid=deletion.uid, revision=deletion.resource_version
        )
        if kind.key == ("", "namespaces") and name in _PERMANENT_NAMESPACES:
            raise refusals.forbidden(kind, name, "this namespace may not be deleted")
        body = plan_deletion(kind, old.body, deletion, now=self._clock())
        if body is None:
            return self._remove(kind, old, dry_run=dry_run), True
        return self.replace(kind, body, old, dry_run=dry_run), False

    def replace(
        self, kind: ResourceType, body: Body, old: Stored, *, dry_run: bool = False
    ) -> Stored:
        """Store the next state of an object as it is: for changes that are no client's update."""
        if body == old.body:
            return old
        meta = body["metadata"]
        if _is_finished(kind, body):
            return self._remove(kind, Stored(body, old.revision), dry_run=dry_run)
        key = (meta.get("namespace", ""), meta["name"])
        return self._commit(kind, "MODIFIED", key, body, old, dry_run=dry_run)

    def rules(self, kind: ResourceType) -> Rules:
        custom = self._custom.get(kind.key)
        return custom.rules if custom else rules_of(kind)

    def schema(self, kind: ResourceType, version: str) -> StructuralSchema | None:
        """The schema of a custom resource."""
        custom = self._custom.get(kind.key)
        return custom.schemas.get(version) if custom else None

    def serve(self, custom: CustomResource) -> None:
        """Serve a custom resource from now on."""
        self.catalog.add(custom.kind)
        self._custom[custom.kind.key] = custom

    def withdraw(self, kind: ResourceType) -> None:
        """Stop serving a custom resource; its objects are lost."""
        for stored in self.list(kind):
            self._remove(kind, stored, dry_run=False)
        self.catalog.remove(kind.key)
        self._custom.pop(kind.key, None)

    def _prepare(self, kind: ResourceType, body: Body, namespace: str) -> None:
        rules = self.rules(kind)
        if kind.status:
            body.pop("status", None)
        rules.default(body, self.now())
        rules.drop(body, None, self.profile)
        problems = [*metadata_problems(kind, body), *rules.create(body, self.profile)]
        if kind.group == "resource.k8s.io" and namespace:
            problems += admin_access_problems(body, self._namespace_labels(namespace))
        self._refuse(kind, body, problems)
        rules.start(body, self.now())

    def _settle(self, kind: ResourceType, body: Body, old: Body, subresource: str) -> None:
        rules = self.rules(kind)
        metadata.keep_other_half(kind, body, old, subresource=subresource)
        rules.default(body, self.now())
        rules.drop(body, old, self.profile)
        rules.settle(body, old)
        check = rules.status if subresource == "status" else rules.update
        problems = [
            *metadata_problems(kind, body),
            *metadata.finalizer_problems(body, old),
            *check(body, old, self.profile),
        ]
        self._refuse(kind, body, problems)
        metadata.count_generation(kind, body, old)

    def _remove(self, kind: ResourceType, last: Stored, *, dry_run: bool) -> Stored:
        body = {**last.body, "metadata": {**last.body["metadata"]}}
        key = (body["metadata"].get("namespace", ""), body["metadata"]["name"])
        previous = self._table(kind).objects.get(key)
        return self._commit(kind, "DELETED", key, body, previous, dry_run=dry_run)

    def _commit(
        self,
        kind: ResourceType,
        change: ChangeType,
        key: ObjectKey,
        body: Body,
        old: Stored | None,
        *,
        dry_run: bool,
    ) -> Stored:
        if dry_run:
            if change == "ADDED":
                body["metadata"].pop("resourceVersion", None)
            return Stored(body, self.revision)
        self.revision += 1
        body["metadata"]["resourceVersion"] = str(self.revision)
        stored = Stored(body, self.revision)
        table = self._table(kind)
        if change == "DELETED":
            table.objects.pop(key, None)
        else:
            table.objects[key] = stored
        committed = Change(self.revision, change, key, stored, old)
        table.history.append(committed)
        after_commit(self, kind, committed)
        return stored

    def _check_namespace(self, kind: ResourceType, name: str, namespace: str) -> None:
        if not kind.namespaced:
            return
        namespaces = self.catalog.at("", "v1", "namespaces")
        if "deletionTimestamp" in self.get(namespaces, namespace).body["metadata"]:
            raise refusals.terminating(kind, name, namespace)

    def _namespace_labels(self, namespace: str) -> dict[str, str]:
        meta = self.get(self.catalog.at("", "v1", "namespaces"), namespace).body["metadata"]
        return meta.get("labels") or {}

    def _refuse(self, kind: ResourceType, body: Body, problems: Iterable[refusals.Problem]) -> None:
        if found := list(problems):
            raise refusals.invalid(kind, body["metadata"].get("name", ""), found)

    def _uid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _table(self, kind: ResourceType) -> _Table:
        table = self._tables.get(kind.key)
        if table is None:
            table = self._tables[kind.key] = _Table(self._history_limit)
        return table

    def _serve_dra_versions(self) -> None:
        served = self.profile.served_versions()
        for kind in self.catalog:
            if kind.group == "resource.k8s.io":
                self.catalog.add(replace(kind, versions=served))

    def __repr__(self) -> str:
        counts = {key[1]: len(table.objects) for key, table in self._tables.items()}
        held: dict[str, Any] = {name: count for name, count in counts.items() if count}
        return f"<ClusterStore {self.profile.version} rv={self.revision} {held}>"


def _is_finished(kind: ResourceType, body: Body) -> bool:
    """Whether a dying object has nothing left that holds it."""
    meta = body["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers"):
        return False
    if kind.key == ("", "namespaces") and (body.get("spec") or {}).get("finalizers"):
        return False
    return not meta.get("deletionGracePeriodSeconds")
