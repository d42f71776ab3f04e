"""Which claims a pod uses, and which pods still need theirs. Pure reading of objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nvdra_kube.api import Body
    from nvdra_kube.informer import Key

RESERVED_FOR_LIMIT = 256


class ClaimProblem(Exception):
    """The pod cannot run anywhere as its claims stand. `waiting`: it will soon, most likely."""

    def __init__(self, message: str, *, waiting: bool = False) -> None:
        super().__init__(message)
        self.waiting = waiting


@dataclass(frozen=True, slots=True)
class ClaimSource:
    """One entry of `spec.resourceClaims`. `claim` is "" as long as none was made from `template`.

    `is_absent` means that the controller decided that no claim is needed.
    """

    name: str
    template: str
    claim: str
    is_absent: bool = False


def claim_sources(pod: Body) -> Iterator[ClaimSource]:
    """Entries of the pod, with the names of generated claims from its status."""
    statuses = (pod.get("status") or {}).get("resourceClaimStatuses") or []
    made = {status["name"]: status.get("resourceClaimName") for status in statuses}
    for entry in pod["spec"].get("resourceClaims") or []:
        name, template = entry["name"], entry.get("resourceClaimTemplateName") or ""
        if not template:
            yield ClaimSource(name, "", entry.get("resourceClaimName") or "")
        else:
            absent = name in made and not made[name]
            yield ClaimSource(name, template, made.get(name) or "", absent)


def claims_of(pod: Body, claims: Mapping[Key, Body]) -> list[Body]:
    """The pod's claims. Raises ClaimProblem while one is missing or must not be used."""
    namespace = pod["metadata"].get("namespace", "")
    found: dict[str, Body] = {}
    for source in claim_sources(pod):
        if source.is_absent:
            continue
        if not source.claim:
            raise ClaimProblem(
                f"waiting for a ResourceClaim to be made from the template {source.template}"
                f" (pod claim {source.name})",
                waiting=True,
            )
        claim = claims.get((namespace, source.claim))
        if claim is None:
            # Often only later in the same manifest, or not yet in the cache.
            text = f"ResourceClaim {namespace}/{source.claim} does not exist"
            raise ClaimProblem(text, waiting=True)
        _check(claim, pod, source)
        found[source.claim] = claim
    return list(found.values())


def _check(claim: Body, pod: Body, source: ClaimSource) -> None:
    metadata = claim["metadata"]
    where = f"ResourceClaim {metadata.get('namespace', '')}/{metadata['name']}"
    if metadata.get("deletionTimestamp"):
        raise ClaimProblem(f"{where} is being deleted")
    if source.template and not is_owned_by(claim, pod):
        raise ClaimProblem(f"{where} was not made for this pod")
    users = (claim.get("status") or {}).get("reservedFor") or []
    if len(users) >= RESERVED_FOR_LIMIT and not is_reserved_for(claim, pod):
        raise ClaimProblem(f"{where} is used by {len(users)} pods already, which is the limit")


def is_owned_by(claim: Body, pod: Body) -> bool:
    """Whether the pod is the controlling owner of a generated claim."""
    owners = claim["metadata"].get("ownerReferences") or []
    return any(o.get("controller") and o["uid"] == pod["metadata"]["uid"] for o in owners)


def is_reserved_for(claim: Body, pod: Body) -> bool:
    users = (claim.get("status") or {}).get("reservedFor") or []
    return any(user.get("uid") == pod["metadata"]["uid"] for user in users)


def is_done(pod: Body) -> bool:
    """Whether the pod will not use its claims (any more)."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    return bool(pod["metadata"].get("deletionTimestamp")) and not pod["spec"].get("nodeName")
