"""IMEX daemons as members of cliques: read from pods and from the nodes that they run on. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_api.names import ANNOTATION_NODE_CLIQUE, LABEL_CLIQUE_ID
from nvdra_operator.domains.scene import (
    annotations_of,
    condition,
    is_dying,
    is_ready,
    labels_of,
    node_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nvdra_kube.api import Body
    from nvdra_operator.domains.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A daemon's pod on its node. `clique` is None while nobody knows it, and empty where the node
    has no NVLink fabric; `why` says what keeps it from being ready. `moved`: its node says that it
    is in another clique by now, and has no use for this daemon."""

    node: str
    pod: str
    namespace: str
    pod_uid: str
    ip: str
    clique: str | None
    ready: bool
    why: str = ""
    labelled: bool = False
    moved: bool = False


def members_of(scene: Scene) -> tuple[Member, ...]:
    """One member for each node that a daemon's pod is bound to, sorted by node.

    Where two pods overlap on a node, the one that stays counts, and of those the newest.
    """
    nodes = {node["metadata"]["name"]: node for node in scene.nodes}
    chosen: dict[str, Body] = {}
    for pod in scene.pods:
        name = node_of(pod)
        if name and (name not in chosen or _rank(pod) > _rank(chosen[name])):
            chosen[name] = pod
    return tuple(_member(chosen[name], nodes.get(name)) for name in sorted(chosen))


def hindrances(scene: Scene, members: Iterable[Member]) -> dict[str, str]:
    """What keeps each node that joined, or has a daemon, from being ready; empty for nothing."""
    found = {member.node: _lacking(member) for member in members}
    unplaced = {_target(pod): _unplaced(pod) for pod in scene.pods if not node_of(pod)}
    for node in scene.nodes:
        name = node["metadata"]["name"]
        if name not in found:
            why = unplaced.get(name) or unplaced.get("") or "daemon has no pod yet"
            found[name] = why if is_ready(node) else _node_not_ready(node)
    return found


def _lacking(member: Member) -> str:
    if member.why:
        return member.why
    if member.clique is None:
        return "its node agent has not said which clique it is in"
    return "" if member.ip else "daemon has no address yet"


def _unplaced(pod: Body) -> str:
    """The scheduler's word on a daemon that it cannot place."""
    placed = condition(pod, "PodScheduled")
    if placed.get("status") != "False":
        return "daemon has not been placed yet"
    return f"daemon cannot be placed: {_reason(placed, 'no reason given')}"


def _target(pod: Body) -> str:
    """The node that the DaemonSet made a pod for, where it says so; empty otherwise."""
    affinity = ((pod.get("spec") or {}).get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for match in term.get("matchFields") or ():
            if match.get("key") == "metadata.name" and match.get("values"):
                return str(match["values"][0])
    return ""


def _rank(pod: Body) -> tuple[bool, bool, str, str]:
    meta = pod["metadata"]
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return (not ended, not is_dying(pod), meta.get("creationTimestamp") or "", meta["name"])


def _member(pod: Body, node: Body | None) -> Member:
    meta = pod["metadata"]
    why = _obstacle(pod, node)
    return Member(
        node=node_of(pod),
        pod=meta["name"],
        namespace=meta["namespace"],
        pod_uid=meta["uid"],
        ip=(pod.get("status") or {}).get("podIP") or "",
        clique=_clique(pod, node),
        ready=not why,
        why=why,
        labelled=LABEL_CLIQUE_ID in labels_of(pod),
        moved=_has_moved(pod, node),
    )


def _clique(pod: Body, node: Body | None) -> str | None:
    """What the pod was told when it started holds for its life; before, what its node says."""
    told = labels_of(pod).get(LABEL_CLIQUE_ID)
    if told is not None:
        return told
    return annotations_of(node).get(ANNOTATION_NODE_CLIQUE) if node is not None else None


def _has_moved(pod: Body, node: Body | None) -> bool:
    told = labels_of(pod).get(LABEL_CLIQUE_ID)
    now = annotations_of(node).get(ANNOTATION_NODE_CLIQUE) if node is not None else None
    return None not in (told, now) and told != now and not is_dying(pod)


def _obstacle(pod: Body, node: Body | None) -> str:
    """Why the daemon is not ready; empty when it is."""
    if node is not None and not is_ready(node):
        return _node_not_ready(node)
    if is_dying(pod):
        return "daemon is ending"
    if is_ready(pod):
        return ""
    return f"daemon is not ready: {_waiting(pod) or _reason(condition(pod, 'Ready'), 'starting')}"


def _node_not_ready(node: Body) -> str:
    return f"node is not ready: {_reason(condition(node, 'Ready'), 'no report')}"


def _waiting(pod: Body) -> str:
    """What the kubelet says about a container that does not run."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            # What holds a container up before it is made, the kubelet tells in Events only.
            silent = not waiting.get("message") and waiting["reason"] == "ContainerCreating"
            more = f"; see the events of pod {pod['metadata']['name']}" if silent else ""
            return _reason(waiting, "") + more
    return ""


def _reason(source: Mapping[str, object], default: str) -> str:
    words = [str(source[name]) for name in ("reason", "message") if source.get(name)]
    return ": ".join(words)[:200] or default
