"""From what is there to what is to be done, for the objects of one domain. Pure.

Only the domain itself bears our finalizer. Its objects need none: what somebody deletes is made
again, and a domain that goes looks for its objects by label until there are none. A finalizer on
them would have to be taken off by a controller, which may be uninstalled by then, and keeps a
DaemonSet that somebody deleted half alive: there, but without new pods. Objects of an earlier
driver have it; they are let go wherever they are met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_api.names import (
    ANNOTATION_NODE_CLIQUE,
    ANNOTATION_TEMPLATE,
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_COMPUTE_DOMAIN,
)
from nvdra_kube.resources import NODES, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.actions import Action, Create, Delete, Patch, Plan
from nvdra_operator.domains.objects import (
    daemon_set,
    daemon_template,
    workload_template,
    workload_template_name,
)
from nvdra_operator.domains.scene import annotations_of, has_finalizer, is_dying
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS

if TYPE_CHECKING:
    from nvdra_kube.api import Body, Resource
    from nvdra_operator.domains.scene import Scene
    from nvdra_operator.settings import DriverSettings


def plan_objects(scene: Scene, settings: DriverSettings) -> Plan:
    """Make what is missing, mend what was altered, let go what somebody deleted.

    The finalizer comes first: what is made before it might never be cleaned up.
    """
    if not workload_template_name(scene.domain):
        return Plan()
    objects: list[Action] = []
    if not settings.host_managed:
        objects += _keep_daemon_template(scene, settings)
        objects += _keep_daemon_set(scene, settings)
    objects += _keep_workload_template(scene, settings)
    stages = (tuple(_keep_finalizer(scene.domain)), tuple(objects))
    return Plan(stages=tuple(stage for stage in stages if stage))


def plan_teardown(scene: Scene, *, patient: bool = True) -> Plan:
    """Undo everything; daemons are waited for while `patient`.

    Level-triggered: looks only at what is left, so it may begin anywhere. Claim templates go also
    where no DaemonSet was ever made. What only others still hold is not ours to wait for.
    """
    left = [
        *((RESOURCE_CLAIM_TEMPLATES, body) for body in scene.templates),
        *((DAEMON_SETS, body) for body in scene.daemon_sets),
        *((CLIQUES, body) for body in scene.cliques),
    ]
    actions: list[Action] = [action for kind, body in left for action in _remove(kind, body)]
    actions += [release_node(node, scene.uid) for node in scene.nodes]
    if actions:
        return Plan(stages=(tuple(actions),))
    if scene.pods and patient:
        return Plan(waiting_for=f"{len(scene.pods)} IMEX daemons that are ending")
    return Plan(finished=True)


def release_node(node: Body, uid: str) -> Patch:
    """Take the domain's label off a node, if it is still this domain's.

    The test on the old value is all the precondition there is: other writers do not disturb it.
    """
    label = f"/metadata/labels/{_escaped(LABEL_COMPUTE_DOMAIN)}"
    patch: list[dict[str, Any]] = [
        {"op": "test", "path": label, "value": uid},
        {"op": "remove", "path": label},
    ]
    if ANNOTATION_NODE_CLIQUE in annotations_of(node):
        path = f"/metadata/annotations/{_escaped(ANNOTATION_NODE_CLIQUE)}"
        patch.append({"op": "remove", "path": path})
    return Patch(
        resource=NODES,
        name=node["metadata"]["name"],
        patch=patch,
        patch_type="application/json-patch+json",
        tested=True,
        why="node leaves the domain",
    )


def drop_finalizer(resource: Resource, body: Body) -> Patch:
    """Let an object go that waits for us. The resourceVersion keeps others' finalizers safe."""
    meta = body["metadata"]
    rest = [name for name in meta.get("finalizers") or () if name != FINALIZER_COMPUTE_DOMAIN]
    return Patch(
        resource=resource,
        name=meta["name"],
        namespace=meta.get("namespace") or "",
        patch={"metadata": {"finalizers": rest, "resourceVersion": meta["resourceVersion"]}},
        why="nothing holds it any more",
    )


def _keep_finalizer(domain: Body) -> list[Action]:
    if has_finalizer(domain):
        return []
    meta = domain["metadata"]
    names = [*(meta.get("finalizers") or ()), FINALIZER_COMPUTE_DOMAIN]
    return [
        Patch(
            resource=COMPUTE_DOMAINS,
            name=meta["name"],
            namespace=meta["namespace"],
            patch={"metadata": {"finalizers": names, "resourceVersion": meta["resourceVersion"]}},
            why="the domain is cleaned up before it goes",
        )
    ]


def _keep_daemon_template(scene: Scene, settings: DriverSettings) -> list[Action]:
    elsewhere = [
        body for body in scene.daemon_sets if body["metadata"]["namespace"] != settings.namespace
    ]
    if elsewhere and len(elsewhere) == len(scene.daemon_sets):
        # A DaemonSet of another installation has its template beside it.
        return []
    wanted = daemon_template(scene.domain, settings)
    return _keep_template(scene, wanted, scene.daemon_templates)


def _keep_workload_template(scene: Scene, settings: DriverSettings) -> list[Action]:
    wanted = workload_template(scene.domain, settings)
    return _keep_template(scene, wanted, scene.workload_templates)


def _keep_template(scene: Scene, wanted: Body, found: tuple[Body, ...]) -> list[Action]:
    meta = wanted["metadata"]
    if scene.is_blocked(wanted):
        return []
    for body in found:
        if (body["metadata"]["namespace"], body["metadata"]["name"]) != (
            meta["namespace"],
            meta["name"],
        ):
            continue
        if is_dying(body):
            return _let_go(RESOURCE_CLAIM_TEMPLATES, body)
        if not includes(body["spec"], wanted["spec"]):
            # A template's spec cannot be changed; claims that were made from it stay as they are.
            return _remove(RESOURCE_CLAIM_TEMPLATES, body)
        return _mend_labels(RESOURCE_CLAIM_TEMPLATES, body, wanted)
    why = "the domain has no claim template of this name"
    return [Create(resource=RESOURCE_CLAIM_TEMPLATES, body=wanted, why=why)]


def _keep_daemon_set(scene: Scene, settings: DriverSettings) -> list[Action]:
    wanted = daemon_set(scene.domain, settings)
    if scene.is_blocked(wanted):
        return []
    # A label that somebody put on another one does not make it ours: only ours has this name.
    name = wanted["metadata"]["name"]
    found = next((body for body in scene.daemon_sets if body["metadata"]["name"] == name), None)
    if found is None:
        why = "the domain has no DaemonSet"
        return [Create(resource=DAEMON_SETS, body=wanted, why=why)]
    if is_dying(found):
        return _let_go(DAEMON_SETS, found)
    if found["metadata"]["namespace"] != settings.namespace:
        return []
    return _roll(scene, found, wanted)


def _roll(scene: Scene, found: Body, wanted: Body) -> list[Action]:
    """Bring a DaemonSet up to date: at once where a person altered it, and where the driver's
    settings changed only while no daemon runs."""
    template = wanted["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    is_current = annotations_of(found).get(ANNOTATION_TEMPLATE) == template
    if is_current and includes(found["spec"], wanted["spec"]):
        return _mend_labels(DAEMON_SETS, found, wanted)
    if not is_current and not scene.is_idle:
        return []
    patch = [
        {"op": "test", "path": "/metadata/uid", "value": found["metadata"]["uid"]},
        {"op": "add", "path": "/metadata/labels", "value": _merged("labels", found, wanted)},
        {
            "op": "add",
            "path": "/metadata/annotations",
            "value": _merged("annotations", found, wanted),
        },
        {"op": "replace", "path": "/spec/template", "value": wanted["spec"]["template"]},
    ]
    return [
        Patch(
            resource=DAEMON_SETS,
            name=found["metadata"]["name"],
            namespace=found["metadata"]["namespace"],
            patch=patch,
            patch_type="application/json-patch+json",
            tested=True,
            why="altered by hand" if is_current else "the driver's settings changed",
        )
    ]


def _mend_labels(resource: Resource, found: Body, wanted: Body) -> list[Action]:
    missing = {
        part: names
        for part in ("labels", "annotations")
        if (names := _missing(found["metadata"].get(part), wanted["metadata"].get(part)))
    }
    if not missing:
        return []
    meta = found["metadata"]
    return [
        Patch(
            resource=resource,
            name=meta["name"],
            namespace=meta["namespace"],
            patch={"metadata": {"uid": meta["uid"], **missing}},
            why="altered by hand",
        )
    ]


def _missing(found: dict[str, str] | None, wanted: dict[str, str] | None) -> dict[str, str]:
    known = found or {}
    return {name: value for name, value in (wanted or {}).items() if known.get(name) != value}


def _merged(part: str, found: Body, wanted: Body) -> dict[str, str]:
    return {**(found["metadata"].get(part) or {}), **wanted["metadata"][part]}


def _remove(resource: Resource, body: Body) -> list[Action]:
    if is_dying(body):
        return _let_go(resource, body)
    meta = body["metadata"]
    return [
        Delete(
            resource=resource,
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            why="not needed any more",
        )
    ]


def _let_go(resource: Resource, body: Body) -> list[Action]:
    return [drop_finalizer(resource, body)] if has_finalizer(body) else []


def includes(found: Any, wanted: Any) -> bool:
    """Whether `found` has all of `wanted`; what a server adds as defaults is no difference."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            includes(found.get(name), value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(includes(have, want) for have, want in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
