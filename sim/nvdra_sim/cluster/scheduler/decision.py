"""What to do with one pending pod: bind it to a node with these devices, or leave it, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from nvdra_sim.cluster.scheduler.allocator import Placement, Unsatisfiable, allocate
from nvdra_sim.cluster.scheduler.nodes import name_of, obstacle, selector_matches
from nvdra_sim.cluster.scheduler.podclaims import ClaimProblem, claims_of, is_reserved_for
from nvdra_sim.cluster.scheduler.usage import claim_key, usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nvdra_kube.api import Body
    from nvdra_kube.informer import Key
    from nvdra_sim.cluster.scheduler.pools import Pool

# Enough for people; conditions take 32 KiB, and many nodes have many reasons.
_LONGEST_MESSAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster as one decision sees it; nobody edits it meanwhile."""

    nodes: Sequence[Body]
    pods: Sequence[Body]
    claims: Mapping[Key, Body]
    classes: Mapping[str, Body]
    pools: Sequence[Pool]


@dataclass(frozen=True, slots=True)
class Bind:
    """Reserve all `claims`, those in `allocations` (by `namespace/name`) with new devices."""

    node: str
    claims: tuple[Body, ...]
    allocations: Mapping[str, Body]


@dataclass(frozen=True, slots=True)
class Leave:
    """The pod stays pending.

    `release`: its allocated claims that nobody else uses, and that may be what is in the way.
    `waiting`: what is missing is expected to come soon, so that it is not yet worth an event.
    """

    message: str
    release: tuple[Body, ...] = ()
    waiting: bool = False


Decision: TypeAlias = Bind | Leave


def decide(pod: Body, cluster: Snapshot) -> Decision:
    """Take the first node that fits, those with the fewest pods first."""
    try:
        claims = claims_of(pod, cluster.claims)
    except ClaimProblem as problem:
        return Leave(str(problem), waiting=problem.waiting)
    if not cluster.nodes:
        return Leave("there are no nodes")
    refusals: dict[str, str] = {}
    for node in _emptiest_first(cluster):
        outcome = _try_node(pod, claims, node, cluster)
        if isinstance(outcome, Placement):
            return Bind(name_of(node), tuple(claims), outcome.allocations)
        refusals[name_of(node)] = "; ".join(outcome.reasons)
    return Leave(_summary(refusals), release=_releasable(pod, claims))


def _emptiest_first(cluster: Snapshot) -> list[Body]:
    load = Counter(pod["spec"].get("nodeName") for pod in cluster.pods if _is_active(pod))
    return sorted(cluster.nodes, key=lambda node: (load[name_of(node)], name_of(node)))


def _is_active(pod: Body) -> bool:
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _try_node(
    pod: Body, claims: Sequence[Body], node: Body, cluster: Snapshot
) -> Placement | Unsatisfiable:
    if reason := obstacle(pod, node):
        return Unsatisfiable((reason,))
    for claim in claims:
        allocation = _allocation(claim)
        selector = (allocation or {}).get("nodeSelector")
        if selector and not selector_matches(selector, node):
            return Unsatisfiable((f"claim {claim_key(claim)} has its devices on another node",))
    missing = [claim for claim in claims if _allocation(claim) is None]
    if not missing:
        return Placement({})
    return allocate(
        missing,
        node=node,
        pools=cluster.pools,
        classes=cluster.classes,
        usage=usage_of(cluster.claims.values()),
    )


def _allocation(claim: Body) -> Body | None:
    allocation: Body | None = (claim.get("status") or {}).get("allocation")
    return allocation


def _releasable(pod: Body, claims: Sequence[Body]) -> tuple[Body, ...]:
    """Allocated claims that only this pod has, if any: their devices may be the wrong ones."""
    return tuple(
        claim
        for claim in claims
        if _allocation(claim) is not None
        and len((claim.get("status") or {}).get("reservedFor") or []) == is_reserved_for(claim, pod)
    )


def _summary(refusals: Mapping[str, str]) -> str:
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for node, reason in refusals.items():
        by_reason[reason].append(node)
    texts = (f"{', '.join(sorted(nodes))}: {reason}" for reason, nodes in by_reason.items())
    text = f"0/{len(refusals)} nodes are available: {'; '.join(texts)}"
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"
