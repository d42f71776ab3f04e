"""What the status of a domain says: the two fields that programs read, and conditions with reasons
for people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_api.domains import NOT_READY, READY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nvdra_kube.api import Body
    from nvdra_operator.cliques.membership import Membership
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
    """The status as it should be; `findings` are what its conditions say, `missing` nodes that
    joined and do not take part yet."""

    status: str
    nodes: tuple[Body, ...]
    findings: tuple[Finding, ...]
    missing: frozenset[str] = frozenset()

    @property
    def is_formed(self) -> bool:
        """Ready, with nodes in it, and with all that have joined."""
        return self.status == READY and bool(self.nodes) and not self.missing


def assess(
    scene: Scene,
    settings: DriverSettings,
    *,
    membership: Membership,
    hindrances: Mapping[str, str] | None = None,
    trouble: str = "",
) -> Assessment:
    """`hindrances` say of nodes what keeps them from being ready; `trouble` is the last error that
    kept the controller from its work."""
    accepted = _accepted(scene, trouble)
    if settings.host_managed:
        ready = _host_managed(accepted)
        return Assessment(
            status=READY if ready.holds else NOT_READY, nodes=(), findings=(ready, accepted)
        )
    missing = _missing(membership, hindrances or {})
    ready = _ready(scene, accepted, membership, missing, hindrances or {})
    connected = _connected(membership, missing, scene.limit(settings.max_nodes))
    return Assessment(
        status=READY if ready.holds else NOT_READY,
        nodes=membership.entries,
        findings=(ready, accepted, connected),
        missing=frozenset(missing),
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
        and same_nodes(wanted, found)
        and wanted["conditions"] == (found.get("conditions") or [])
    )


def same_nodes(wanted: Body, found: Body) -> bool:
    return _by_name(wanted["nodes"]) == _by_name(found.get("nodes") or ())


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
    membership: Membership,
    missing: Mapping[str, str],
    hindrances: Mapping[str, str],
) -> Finding:
    if not accepted.holds:
        return Finding(CONDITION_READY, False, accepted.reason, accepted.message)
    entries = membership.entries
    pending = f"; waiting for {_told(missing)}" if missing else ""
    expected = (scene.domain.get("spec") or {}).get("numNodes") or 0
    if membership.overflow:
        message = f"no slot left in the clique for {_listed(membership.overflow)}"
        return Finding(CONDITION_READY, False, "CliqueFull", message)
    if len(entries) < expected:
        message = f"{len(entries)} of {expected} nodes have joined{pending}"
        return Finding(CONDITION_READY, False, "WaitingForNodes", message[:_MAX_MESSAGE])
    if lame := [entry["name"] for entry in entries if entry.get("status") != READY]:
        whys = {name: hindrances.get(name) or "no daemon runs there" for name in lame}
        message = f"{len(lame)} of {len(entries)} nodes are not ready: {_told(whys)}"
        return Finding(CONDITION_READY, False, "NodeNotReady", message[:_MAX_MESSAGE])
    if not entries:
        message = f"no node takes part yet{pending}"
        return Finding(CONDITION_READY, True, "NoNodesYet", message[:_MAX_MESSAGE])
    message = f"all {len(entries)} nodes are ready{pending}"
    return Finding(CONDITION_READY, True, "NodesReady", message[:_MAX_MESSAGE])


def _missing(membership: Membership, hindrances: Mapping[str, str]) -> dict[str, str]:
    """Nodes that joined, or have a daemon, and have no entry; those beyond a limit left out."""
    listed = {entry["name"] for entry in membership.entries} | set(membership.overflow)
    return {name: why for name, why in hindrances.items() if why and name not in listed}


def _connected(membership: Membership, missing: Mapping[str, str], limit: int) -> Finding:
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
    if missing:
        return Finding(kind, False, "WaitingForDaemons", _told(missing)[:_MAX_MESSAGE])
    if membership.without_fabric:
        message = f"nodes without an NVLink fabric: {_listed(membership.without_fabric)}"
        return Finding(kind, False, "NodesWithoutFabric", message)
    if len(membership.cliques) > 1:
        message = f"nodes are in {len(membership.cliques)} NVLink cliques"
        return Finding(kind, False, "SeveralCliques", message)
    if not membership.cliques:
        return Finding(kind, True, "NoNodesYet", "no node takes part yet")
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


def _told(whys: Mapping[str, str]) -> str:
    """Nodes with what is said of them, those together of which the same is said."""
    nodes: dict[str, list[str]] = {}
    for name, why in sorted(whys.items()):
        nodes.setdefault(why, []).append(name)
    return "; ".join(f"{_listed(names)}: {why}" for why, names in nodes.items())


def _by_name(nodes: Iterable[Body]) -> dict[str, Body]:
    return {node["name"]: node for node in nodes}


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
