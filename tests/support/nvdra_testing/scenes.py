"""Builders for what the controller sees of one domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nvdra_api.names import (
    ANNOTATION_NODE_CLIQUE,
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_CLIQUE_ID,
    LABEL_COMPUTE_DOMAIN,
    NAMESPACE,
)
from nvdra_operator.domains.objects import daemon_set, daemon_template, workload_template
from nvdra_operator.domains.scene import Scene
from nvdra_testing.compute_domains import CLIQUE, a_domain, some_settings

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_operator.settings import DriverSettings

UID: Final = "11111111-2222-3333-4444-555555555555"
_LATER: Final = "2026-01-01T00:00:00Z"


def stored(body: Body, *, uid: str = "", dying: bool = False, finalizer: bool = False) -> Body:
    """An object as the server returns it."""
    meta = {**body["metadata"], "resourceVersion": "7"}
    meta["uid"] = uid or meta.get("uid") or f"uid-of-{meta['name']}"
    if dying:
        meta["deletionTimestamp"] = _LATER
    if finalizer:
        meta["finalizers"] = [FINALIZER_COMPUTE_DOMAIN]
    return {**body, "metadata": meta}


def the_domain(*, finalizer: bool = True, dying: bool = False, **options: Any) -> Body:
    return stored(a_domain(**options), uid=UID, finalizer=finalizer, dying=dying)


def a_joined_node(name: str, *, clique: str | None = CLIQUE, ready: str = "True") -> Body:
    meta: Body = {"name": name, "labels": {LABEL_COMPUTE_DOMAIN: UID}, "resourceVersion": "3"}
    if clique is not None:
        meta["annotations"] = {ANNOTATION_NODE_CLIQUE: clique}
    return {"metadata": meta, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def a_daemon_pod(
    node: str = "",
    *,
    name: str = "",
    ip: str = "",
    ready: bool = False,
    clique: str | None = None,
    **status: Any,
) -> Body:
    name = name or f"daemon-{node or 'pending'}"
    labels = {LABEL_COMPUTE_DOMAIN: UID}
    if clique is not None:
        labels[LABEL_CLIQUE_ID] = clique
    meta = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "labels": labels}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": meta,
        "spec": {"nodeName": node},
        "status": {"podIP": ip, "conditions": conditions, **status},
    }


def a_whole_scene(settings: DriverSettings | None = None, **parts: Any) -> Scene:
    """A domain with all its objects; `parts` replace some of them."""
    settings = settings or some_settings()
    domain = parts.pop("domain", None) or the_domain()
    own: dict[str, Any] = {
        "daemon_sets": (stored(daemon_set(domain, settings)),),
        "templates": (
            stored(daemon_template(domain, settings)),
            stored(workload_template(domain, settings)),
        ),
    }
    return Scene(domain=domain, **{**own, **parts})
