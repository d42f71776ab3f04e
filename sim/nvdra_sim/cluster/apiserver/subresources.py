"""Sub-resources that are not parts of the object: binding, eviction, finalize, scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.apiserver import refusals
from nvdra_sim.cluster.apiserver.bodies import own
from nvdra_sim.cluster.apiserver.deletion import Deletion

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_kube.errors import ApiError
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
            raise _no_method(call, "POST")
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def get_subresource(store: ClusterStore, call: Call) -> Body:
    if call.subresource != "scale":
        raise _no_method(call, "GET")
    return _scale_of(store.get(call.kind, call.name, namespace=call.namespace).body)


def put_subresource(store: ClusterStore, call: Call, body: Any) -> Body:
    """`body` is what the call brings, or what its patch leads to."""
    match call.subresource:
        case "finalize":
            return _finalize(store, call, body or {})
        case "scale":
            return _scale(store, call, body or {})
    raise _no_method(call, "PUT")


def _bind(store: ClusterStore, call: Call) -> None:
    """Give a pod its node, once."""
    node = ((call.body or {}).get("target") or {}).get("name")
    if not node:
        problem = refusals.Problem("target.name", "FieldValueRequired", "Required value")
        raise refusals.invalid(call.kind, call.name, [problem])
    stored = store.get(call.kind, call.name, namespace=call.namespace)
    old = stored.body
    if "deletionTimestamp" in old["metadata"]:
        why = f"pod {call.name} is being deleted, cannot be assigned to a host"
        raise refusals.conflict(call.kind, call.name, why)
    bound = (old.get("spec") or {}).get("nodeName")
    if bound:
        why = f'pod {call.name} is already assigned to node "{bound}"'
        raise refusals.conflict(call.kind, call.name, why)
    store.replace(call.kind, _bound(old, node, store.now()), stored, dry_run=call.dry_run)


def _bound(pod: Body, node: str, now: str) -> Body:
    status = pod.get("status") or {}
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}
    others = [each for each in status.get("conditions", ()) if each["type"] != "PodScheduled"]
    return {
        **pod,
        "metadata": {**pod["metadata"]},
        "spec": {**pod["spec"], "nodeName": node},
        "status": {**status, "conditions": [*others, scheduled]},
    }


def _evict(store: ClusterStore, call: Call) -> None:
    options = (call.body or {}).get("deleteOptions") or {}
    deletion = Deletion(grace_period_s=options.get("gracePeriodSeconds"))
    store.delete(
        call.kind, call.name, namespace=call.namespace, deletion=deletion, dry_run=call.dry_run
    )


def _finalize(store: ClusterStore, call: Call, body: Body) -> Body:
    """The namespace controller's word that a namespace is empty."""
    body = {**body, "metadata": {**(body.get("metadata") or {}), "name": call.name}}
    return store.update(call.kind, body, subresource="finalize", dry_run=call.dry_run).body


def _scale(store: ClusterStore, call: Call, body: Body) -> Body:
    replicas = (body.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        why = f"Invalid value: {replicas}: must be greater than or equal to 0"
        problem = refusals.Problem("spec.replicas", "FieldValueInvalid", why)
        raise refusals.invalid(call.kind, call.name, [problem])
    scaled = own(store.get(call.kind, call.name, namespace=call.namespace).body)
    scaled["spec"]["replicas"] = replicas
    revision = (body.get("metadata") or {}).get("resourceVersion")
    if revision:
        scaled["metadata"]["resourceVersion"] = revision
    return _scale_of(
        store.update(call.kind, scaled, namespace=call.namespace, dry_run=call.dry_run).body
    )


def _scale_of(body: Body) -> Body:
    meta, labels = body["metadata"], (body["spec"].get("selector") or {}).get("matchLabels") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: meta[field] for field in kept if field in meta},
        "spec": {"replicas": body["spec"].get("replicas", 0)},
        "status": {
            "replicas": (body.get("status") or {}).get("replicas", 0),
            "selector": ",".join(f"{name}={value}" for name, value in labels.items()),
        },
    }


def _no_method(call: Call, method: str) -> ApiError:
    return refusals.method_not_allowed(
        f"{call.kind.qualified}/{call.subresource} does not support {method}"
    )
