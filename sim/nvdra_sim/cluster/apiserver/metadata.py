"""The arithmetic of object metadata: what the server fills in, keeps, and refuses to change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.bodies import own
from nvdra_sim.cluster.apiserver.refusals import Problem, bad_request, conflict

if TYPE_CHECKING:
    import random

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_MAX_BASE = 63 - _SUFFIX_LENGTH

_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def timestamp(moment: datetime) -> str:
    """RFC 3339 in whole seconds, as object metadata carries it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generated_name(prefix: str, rng: random.Random) -> str:
    suffix = "".join(rng.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))
    return prefix[:_MAX_BASE] + suffix


def metadata_of(body: Body) -> Body:
    """The object's metadata, created when absent; a malformed one is the caller's fault."""
    meta = body.setdefault("metadata", {})
    if meta is None:
        meta = body["metadata"] = {}
    if not isinstance(meta, dict):
        raise bad_request("metadata must be an object")
    for name in ("labels", "annotations"):
        if meta.get(name) is None:
            meta.pop(name, None)
    for name in ("finalizers", "ownerReferences", "managedFields"):
        if not meta.get(name):
            meta.pop(name, None)
    return meta


def start_metadata(kind: ResourceType, body: Body, *, namespace: str, uid: str, now: str) -> None:
    """Turn a client's metadata into that of a new object; the name is already there."""
    meta = metadata_of(body)
    for name in (*_SERVER_OWNED, "resourceVersion", "generation", "selfLink"):
        meta.pop(name, None)
    if kind.namespaced:
        meta["namespace"] = namespace
    else:
        meta.pop("namespace", None)
    meta["uid"] = uid
    meta["creationTimestamp"] = now
    if kind.generation:
        meta["generation"] = 1


def carry_metadata(kind: ResourceType, body: Body, old: Body) -> None:
    """Put back what no client can change, after checking the client's preconditions."""
    meta, old_meta = metadata_of(body), old["metadata"]
    name = old_meta["name"]
    check_preconditions(
        kind, old, uid=meta.get("uid") or "", revision=meta.get("resourceVersion") or ""
    )
    meta["name"] = name
    meta["resourceVersion"] = old_meta["resourceVersion"]
    for field in (*_SERVER_OWNED, "namespace", "generation"):
        if field in old_meta:
            meta[field] = old_meta[field]
        else:
            meta.pop(field, None)
    meta.pop("selfLink", None)


def check_preconditions(kind: ResourceType, old: Body, *, uid: str, revision: str) -> None:
    meta = old["metadata"]
    if uid and uid != meta["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta['uid']}"
        raise conflict(kind, meta["name"], why)
    if revision and revision != meta["resourceVersion"]:
        raise conflict(kind, meta["name"])


def keep_other_half(kind: ResourceType, body: Body, old: Body, *, subresource: str) -> None:
    """Spec and status go through different doors: restore what this door does not write."""
    if not kind.status:
        return
    if subresource != "status":
        _restore(body, old, "status")
        if kind.key == ("", "namespaces") and subresource != "finalize":
            _restore(body, old, "spec")
        return
    for field in {*body, *old} - {"status", "metadata", "apiVersion", "kind"}:
        _restore(body, old, field)
    meta, old_meta = body["metadata"], old["metadata"]
    kept = ["finalizers", "ownerReferences"]
    if kind.status_metadata == "kept":
        kept += ["labels", "annotations"]
    for field in kept:
        _restore(meta, old_meta, field)


def count_generation(kind: ResourceType, body: Body, old: Body) -> None:
    """Generation rises with every change outside metadata and status."""
    if kind.generation and _content(body, kind) != _content(old, kind):
        body["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def finalizer_problems(body: Body, old: Body) -> list[Problem]:
    """An object that is being deleted takes no new finalizers."""
    if "deletionTimestamp" not in old["metadata"]:
        return []
    before = set(old["metadata"].get("finalizers", ()))
    added = [name for name in body["metadata"].get("finalizers", ()) if name not in before]
    if not added:
        return []
    message = (
        "Forbidden: no new finalizers can be added if the object is being deleted,"
        f" found new finalizers {added}"
    )
    return [Problem("metadata.finalizers", "FieldValueForbidden", message)]


def _restore(body: Body, old: Body, field: str) -> None:
    if field in old:
        body[field] = own(old[field])
    else:
        body.pop(field, None)


def _content(body: Body, kind: ResourceType) -> Body:
    ignored = {"metadata", "apiVersion", "kind"} | ({"status"} if kind.status else set())
    return {field: value for field, value in body.items() if field not in ignored}
