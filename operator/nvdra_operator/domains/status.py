"""What the status of a domain says: the two fields that programs read, and conditions with reasons
for people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_api.domains import NOT_READY, READY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nvdra_kube.api import Body
    from nvdra_operator.cliques.members import Member
    from nvdra_operator.cliques.plan import Membership
    from nvdra_operator.domains.scene import Scene
    from nvdra_operator.settings import DriverSettings

CONDITION_READY: Final = "Ready"
CONDITION_ACCEPTED: Final = "Accepted"
CONDITION_CONNECTED: Final = "Connected"
_NAMED: Final = 5
_MAX_MESSAGE: Final = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition before it has a time."""

    type: str
    holds: bool
    reason: str
    message: str

    @property
    def status(self) -> str:
        return "True" if self.holds else "False"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The status as it should be; `findings` are what its conditions say."""

    status: str
    nodes: tuple[Body, ...]
    findings: tuple[Finding, ...]

    @property
    def is_formed(self) -> bool:
        """Ready, with nodes in it."""
        return self.status == READY and bool(self.nodes)


def assess(
    scene: Scene,
    settings: DriverSettings,
    *,
    members: Iterable[Member],
    membership: Membership,
    waiting: tuple[str, ...] = (),
    unplaced: str = "",
    trouble: str = "",
) -> Assessment:
    """`waiting` are nodes that joined and have no daemon yet, `unplaced` what the scheduler says
    of such a daemon; `trouble` is the last error that kept the controller from its work."""
    accepted = _accepted(scene, trouble)
    if settings.host_managed:
        ready = _host_managed(accepted)
        return Assessment(
            status=READY if ready.holds else NOT_READY, nodes=(), findings=(ready, accepted)
        )
    pending = _pending(waiting, unplaced)
    ready = _ready(scene, accepted, tuple(members), membership, pending)
    return Assessment(
        status=READY if ready.holds else NOT_READY,
        nodes=membership.entries,
        findings=(ready, accepted, _connected(membership, scene.limit(settings.max_nodes))),
    )


def merged_status(assessment: Assessment, old: Body, *, generation: int, now: str) -> Body:
    """The status to write. A condition keeps the time of its last change; conditions of others
    stay."""
    known = {one.get("type"): one for one in old.get("conditions") or ()}
    ours = {finding.type for finding in assessment.findings}
    conditions = [
        _condition(finding, known.get(finding.type), generation, now)
        for finding in assessment.findings
    ]
    conditions += [one for kind, one in known.items() if kind not in ours]
    return {
        "status": assessment.status,
        "nodes": list(assessment.nodes),
        "conditions": conditions,
    }


def same_status(wanted: Body, found: Body) -> bool:
    """Whether there is nothing to write. The order of nodes does not matter."""
    return (
        wanted["status"] == found.get("status")
        and _by_name(wanted["nodes"]) == _by_name(found.get("nodes") or ())
        and wanted["conditions"] == (found.get("conditions") or [])
    )


def _accepted(scene: Scene, trouble: str) -> Finding:
    if scene.obstacles:
        message = "; ".join(str(obstacle) for obstacle in scene.obstacles)
        kinds = {obstacle.kind for obstacle in scene.obstacles}
        reason = "ClaimTemplateConflict" if "ResourceClaimTemplate" in kinds else "NameConflict"
        return Finding(CONDITION_ACCEPTED, False, reason, message[:_MAX_MESSAGE])
    if trouble:
        return Finding(CONDITION_ACCEPTED, False, "ObjectsNotWritten", trouble[:_MAX_MESSAGE])
    return Finding(CONDITION_ACCEPTED, True, "ObjectsMade", "all objects of the domain are there")


def _host_managed(accepted: Finding) -> Finding:
    if accepted.holds:
        message = "the claim template is there; IMEX daemons are the hosts' business"
        return Finding(CONDITION_READY, True, "HostManaged", message)
    return Finding(CONDITION_READY, False, accepted.reason, accepted.message)


def _ready(
    scene: Scene,
    accepted: Finding,
    members: tuple[Member, ...],
    membership: Membership,
    pending: str,
) -> Finding:
    if not accepted.holds:
        return Finding(CONDITION_READY, False, accepted.reason, accepted.message)
    entries = membership.entries
    expected = (scene.domain.get("spec") or {}).get("numNodes") or 0
    if membership.overflow:
        message = f"no slot left in the clique for {_listed(membership.overflow)}"
        return Finding(CONDITION_READY, False, "CliqueFull", message)
    if len(entries) < expected:
        message = f"{len(entries)} of {expected} nodes have joined{pending}"
        return Finding(CONDITION_READY, False, "WaitingForNodes", message)
    if lame := [entry["name"] for entry in entries if entry.get("status") != READY]:
        whys = {member.node: member.why for member in members}
        told = [f"{name}: {whys.get(name) or 'daemon is not ready'}" for name in lame]
        message = f"{len(lame)} of {len(entries)} nodes are not ready: {_listed(told)}"
        return Finding(CONDITION_READY, False, "NodeNotReady", message[:_MAX_MESSAGE])
    if not entries:
        return Finding(CONDITION_READY, True, "NoNodesYet", f"no node has joined{pending}")
    message = f"all {len(entries)} nodes are ready{pending}"
    return Finding(CONDITION_READY, True, "NodesReady", message)


def _pending(waiting: tuple[str, ...], unplaced: str) -> str:
    if not waiting:
        return ""
    why = f": {unplaced}" if unplaced else ""
    return f"; waiting for daemons on {_listed(waiting)}{why}"[:_MAX_MESSAGE]


def _connected(membership: Membership, limit: int) -> Finding:
    """Whether every node can share memory with every other one."""
    kind = CONDITION_CONNECTED
    if membership.overflow:
        message = f"a clique can have {limit} nodes; without a slot: {_listed(membership.overflow)}"
        return Finding(kind, False, "CliqueFull", message)
    if membership.unknown:
        message = (
            f"the node agent of {_listed(membership.unknown)} did not say which clique it is in; "
            "is it of this version?"
        )
        return Finding(kind, False, "CliqueUnknown", message)
    if membership.without_fabric:
        message = f"nodes without an NVLink fabric: {_listed(membership.without_fabric)}"
        return Finding(kind, False, "NodesWithoutFabric", message)
    if len(membership.cliques) > 1:
        message = f"nodes are in {len(membership.cliques)} NVLink cliques"
        return Finding(kind, False, "SeveralCliques", message)
    if not membership.cliques:
        return Finding(kind, True, "NoNodesYet", "no node has joined")
    return Finding(kind, True, "OneClique", f"all nodes are in clique {membership.cliques[0]}")


def _condition(finding: Finding, old: Body | None, generation: int, now: str) -> Body:
    changed = old is None or old.get("status") != finding.status
    return {
        "type": finding.type,
        "status": finding.status,
        "observedGeneration": generation,
        "lastTransitionTime": now if changed or old is None else old["lastTransitionTime"],
        "reason": finding.reason,
        "message": finding.message,
    }


def _by_name(nodes: Iterable[Body]) -> dict[str, Body]:
    return {node["name"]: node for node in nodes}


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
