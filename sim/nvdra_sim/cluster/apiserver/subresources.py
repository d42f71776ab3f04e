"""Sub-resources that are verbs rather than parts: binding, eviction, finalize, scale, token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver import refusals
from nvdra_sim.cluster.apiserver.deletion import Deletion

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.front import Call
    from nvdra_sim.cluster.apiserver.store import ClusterStore


def post_subresource(store: ClusterStore, call: Call) -> Body:
    """Raises `ApiError` for sub-resources that take no POST."""
    match call.subresource:
        case "binding":
            _bind(store, call)
        case "eviction":
            _evict(store, call)
        case _:
            raise refusals.method_not_allowed(
                f"{call.kind.qualified}/{call.subresource} does not support POST"
            )
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def put_subresource(store: ClusterStore, call: Call) -> Body:
    match call.subresource:
        case "finalize":
            return _finalize(store, call)
    raise refusals.method_not_allowed(
        f"{call.kind.qualified}/{call.subresource} does not support PUT"
    )


def _bind(store: ClusterStore, call: Call) -> None:
    """Give a pod its node, once."""
    node = ((call.body or {}).get("target") or {}).get("name")
    if not node:
        problem = refusals.Problem("target.name", "FieldValueRequired", "Required value")
        raise refusals.invalid(call.kind, call.name, [problem])
    old = store.get(call.kind, call.name, namespace=call.namespace).body
    if "deletionTimestamp" in old["metadata"]:
        why = f"pod {call.name} is being deleted, cannot be assigned to a host"
        raise refusals.conflict(call.kind, call.name, why)
    bound = (old.get("spec") or {}).get("nodeName")
    if bound:
        why = f'pod {call.name} is already assigned to node "{bound}"'
        raise refusals.conflict(call.kind, call.name, why)
    store.bind(call.kind, old, node, dry_run=call.dry_run)


def _evict(store: ClusterStore, call: Call) -> None:
    options = (call.body or {}).get("deleteOptions") or {}
    deletion = Deletion(grace_period_s=options.get("gracePeriodSeconds"))
    store.delete(
        call.kind, call.name, namespace=call.namespace, deletion=deletion, dry_run=call.dry_run
    )


def _finalize(store: ClusterStore, call: Call) -> Body:
    """The namespace controller's word that a namespace is empty."""
    body = dict(call.body or {})
    body["metadata"] = {**(body.get("metadata") or {}), "name": call.name}
    return store.update(call.kind, body, subresource="finalize", dry_run=call.dry_run).body
