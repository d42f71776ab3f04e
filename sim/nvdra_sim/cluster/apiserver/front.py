"""The order in which a call is served, in process or over HTTP: trouble, decoding, store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.apiserver import faults, refusals
from nvdra_sim.cluster.apiserver.bodies import encode, own
from nvdra_sim.cluster.apiserver.deletion import Deletion
from nvdra_sim.cluster.apiserver.fields import conversion
from nvdra_sim.cluster.apiserver.fields.decoding import decoded
from nvdra_sim.cluster.apiserver.paging import page_of
from nvdra_sim.cluster.apiserver.patching.patches import patched
from nvdra_sim.cluster.apiserver.selectors import Selector
from nvdra_sim.cluster.apiserver.subresources import (
    get_subresource,
    post_subresource,
    put_subresource,
)
from nvdra_sim.cluster.apiserver.watching import parse_revision, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType
    from nvdra_sim.cluster.apiserver.faults import Fault
    from nvdra_sim.cluster.apiserver.history import Stored
    from nvdra_sim.cluster.apiserver.store import ClusterStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the API, however it came in. `body` belongs to the callee."""

    verb: str
    kind: ResourceType
    version: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    body: Any = None
    patch_type: str = ""
    field_manager: str = ""
    force: bool = False
    dry_run: bool = False
    field_validation: str = "Ignore"
    selector: Selector = field(default_factory=Selector)
    resource_version: str = ""
    deletion: Deletion = field(default_factory=Deletion)
    timeout_s: float = 300.0
    bookmarks: bool = True
    initial_events: bool = False
    limit: int = 0
    after: tuple[str, str] = ("", "")
    """With `limit`: the (namespace, name) that the page before ended with."""


@dataclass(frozen=True, slots=True)
class Answer:
    """JSON for the client, with the code and the warnings that HTTP adds."""

    raw: bytes
    status: int = 200
    warnings: tuple[str, ...] = ()


class Front:
    """Serves calls against one store; raises `ApiError` for every refusal."""

    def __init__(self, store: ClusterStore) -> None:
        self.store = store

    async def serve(self, call: Call) -> Answer:
        """Any call but a watch."""
        kind = call.kind
        if call.subresource and not kind.serves_subresource(call.subresource):
            raise refusals.no_such_resource()
        trouble = self.store.faults.strike(
            call.verb,
            kind.plural,
            subresource=call.subresource,
            namespace=call.namespace,
            name=call.name or _name_in(call.body),
        )
        await faults.suffer(trouble, after=False)
        if trouble and isinstance(call.body, dict):
            faults.drop_fields(trouble, call.body)
        answer = _VERBS[call.verb](self, call)
        await faults.suffer(trouble, after=True)
        return answer

    async def watch(self, call: Call) -> AsyncIterator[bytes]:
        """Open a watch: its lines, each without the newline. `Gone` is raised among the lines."""
        kind = call.kind
        trouble = self.store.faults.strike("watch", kind.plural, namespace=call.namespace)
        await faults.suffer(trouble, after=False)
        parse_revision(call.resource_version, self.store)
        return self._lines(call, trouble)

    async def _lines(self, call: Call, trouble: list[Fault]) -> AsyncIterator[bytes]:
        lines = watch(
            self.store,
            call.kind,
            resource_version=call.resource_version,
            namespace=call.namespace,
            selector=call.selector,
            timeout_s=call.timeout_s,
            bookmarks=call.bookmarks,
            initial_events=call.initial_events,
        )
        async for line in lines:
            what = line.what
            if isinstance(what, int):
                raw = encode(_bookmark(call, what, ends_initial=line.ends_initial))
            else:
                raw = self._raw(call, what)
            yield b'{"type":"%b","object":%b}' % (line.type.encode(), raw)
            await faults.suffer(trouble, after=True)

    def _get(self, call: Call) -> Answer:
        if call.subresource not in _HALVES:
            return Answer(encode(get_subresource(self.store, call)))
        return Answer(self._raw(call, self._stored(call)))

    def _list(self, call: Call) -> Answer:
        parse_revision(call.resource_version, self.store)
        found = self.store.list(call.kind, call.selector, namespace=call.namespace)
        meta: Body = {"resourceVersion": str(self.store.revision)}
        if call.limit or any(call.after):
            found = page_of(found, limit=call.limit, after=call.after, meta=meta)
        head = {
            "kind": f"{call.kind.kind}List",
            "apiVersion": call.kind.api_version(call.version),
            "metadata": meta,
        }
        items = b",".join(self._raw(call, stored) for stored in found)
        return Answer(encode(head)[:-1] + b',"items":[' + items + b"]}")

    def _create(self, call: Call) -> Answer:
        if call.subresource:
            body = post_subresource(self.store, call)
            return Answer(encode(body), status=201)
        body, warnings = self._decoded(call, call.body)
        stored = self.store.create(call.kind, body, namespace=call.namespace, dry_run=call.dry_run)
        return Answer(self._raw(call, stored), 201, warnings)

    def _update(self, call: Call) -> Answer:
        if call.subresource not in _HALVES:
            return Answer(encode(put_subresource(self.store, call, call.body)))
        body, warnings = self._decoded(call, call.body)
        return Answer(self._raw(call, self._write(call, body)), 200, warnings)

    def _patch(self, call: Call) -> Answer:
        if call.patch_type == "application/apply-patch+yaml" and not self._exists(call):
            return self._create_by_apply(call)
        if call.subresource not in _HALVES:
            body = patched(self.store, call, get_subresource(self.store, call))
            return Answer(encode(put_subresource(self.store, call, own(body))))
        current = conversion.from_storage(call.kind, call.version, self._stored(call).body)
        body, warnings = self._decoded(call, own(patched(self.store, call, current)))
        return Answer(self._raw(call, self._write(call, body)), 200, warnings)

    def _create_by_apply(self, call: Call) -> Answer:
        if call.subresource:
            raise refusals.not_found(call.kind, call.name)
        body, warnings = self._decoded(call, own(patched(self.store, call, None)))
        stored = self.store.create(call.kind, body, namespace=call.namespace, dry_run=call.dry_run)
        return Answer(self._raw(call, stored), 201, warnings)

    def _delete(self, call: Call) -> Answer:
        stored, gone = self.store.delete(
            call.kind,
            call.name,
            namespace=call.namespace,
            deletion=call.deletion,
            dry_run=call.dry_run,
        )
        if not gone:
            return Answer(self._raw(call, stored))
        details: Body = {"name": call.name, "kind": call.kind.plural}
        if call.kind.group:
            details["group"] = call.kind.group
        details["uid"] = stored.body["metadata"]["uid"]
        return Answer(encode(success(details)))

    def _delete_collection(self, call: Call) -> Answer:
        for stored in self.store.list(call.kind, call.selector, namespace=call.namespace):
            meta = stored.body["metadata"]
            self.store.delete(
                call.kind,
                meta["name"],
                namespace=meta.get("namespace", ""),
                deletion=call.deletion,
                dry_run=call.dry_run,
            )
        return Answer(encode(success({})))

    def _write(self, call: Call, body: Body) -> Stored:
        given = (body.get("metadata") or {}).get("name")
        if call.name and given and given != call.name:
            raise refusals.bad_request(
                f"the name of the object ({given}) does not match the name on the URL ({call.name})"
            )
        return self.store.update(
            call.kind,
            body,
            namespace=call.namespace,
            subresource=call.subresource,
            dry_run=call.dry_run,
        )

    def _decoded(self, call: Call, body: Any) -> tuple[Body, tuple[str, ...]]:
        """A client's object in the storage version, with warnings about what it should not say."""
        schema = self.store.schema(call.kind, call.version)
        unknown = schema.prune(body) if schema and isinstance(body, dict) else []
        return decoded(
            call.kind,
            call.version,
            body,
            field_validation=call.field_validation,
            unknown_custom=unknown,
        )

    def _exists(self, call: Call) -> bool:
        key = (call.namespace if call.kind.namespaced else "", call.name)
        return self.store.has(call.kind, key)

    def _stored(self, call: Call) -> Stored:
        return self.store.get(call.kind, call.name, namespace=call.namespace)

    def _raw(self, call: Call, stored: Stored) -> bytes:
        return stored.raw(
            call.version, lambda body: conversion.from_storage(call.kind, call.version, body)
        )


# Both halves of an object are written as the object; other sub-resources are things of their own.
_HALVES = ("", "status")
_VERBS = {
    "get": Front._get,
    "list": Front._list,
    "create": Front._create,
    "update": Front._update,
    "patch": Front._patch,
    "delete": Front._delete,
    "deletecollection": Front._delete_collection,
}


def success(details: Body) -> Body:
    status: Body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        status["details"] = details
    return status


def _name_in(body: Any) -> str:
    meta = body.get("metadata") if isinstance(body, dict) else None
    return str(meta.get("name") or "") if isinstance(meta, dict) else ""


def _bookmark(call: Call, revision: int, *, ends_initial: bool) -> Body:
    meta: Body = {"resourceVersion": str(revision), "creationTimestamp": None}
    if ends_initial:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    return {
        "kind": call.kind.kind,
        "apiVersion": call.kind.api_version(call.version),
        "metadata": meta,
    }
