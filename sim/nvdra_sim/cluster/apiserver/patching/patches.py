"""Which kind of patch a call brings, and the object that it leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.apiserver import refusals
from nvdra_sim.cluster.apiserver.patching.apply_patch import server_side_apply
from nvdra_sim.cluster.apiserver.patching.json_patch import json_patch
from nvdra_sim.cluster.apiserver.patching.merge_keys import apply_keys, strategic_keys
from nvdra_sim.cluster.apiserver.patching.strategic_patch import strategic_merge

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.front import Call
    from nvdra_sim.cluster.apiserver.store import ClusterStore

_FOR_ALL = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"


def patched(store: ClusterStore, call: Call, current: Body | None) -> Any:
    """The object that the call's patch makes of `current`, which stays as it is.

    `current` is None only for an apply that creates.
    """
    kind = call.kind
    if call.patch_type == "application/json-patch+json":
        return json_patch(current, call.body)
    if not isinstance(call.body, dict):
        raise refusals.bad_request("the patch must be an object")
    match call.patch_type:
        case "application/merge-patch+json":
            return merge(current, call.body)
        case "application/strategic-merge-patch+json" if not kind.custom:
            return strategic_merge(current, call.body, strategic_keys(kind))
        case "application/apply-patch+yaml":
            return _applied(store, call, current)
    raise refusals.unsupported_media_type(call.patch_type, _FOR_ALL)


def _applied(store: ClusterStore, call: Call, current: Body | None) -> Body:
    if not call.field_manager:
        problem = refusals.Problem(
            "fieldManager", "FieldValueRequired", "Required value: is required for apply patch"
        )
        raise refusals.invalid(call.kind, call.name, [problem])
    body: Body = {**call.body, "metadata": {**(call.body.get("metadata") or {})}}
    body["metadata"].setdefault("name", call.name)
    schema = store.schema(call.kind, call.version)
    return server_side_apply(
        current,
        body,
        manager=call.field_manager,
        force=call.force,
        keys=schema.list_keys if schema else apply_keys(call.kind),
        now=store.now(),
        subresource=call.subresource,
    )


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
