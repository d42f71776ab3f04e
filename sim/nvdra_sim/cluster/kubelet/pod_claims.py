"""Which claims a Pod has, whether it may use them, and which devices each container gets.

Pure functions over API objects, with the checks that the kubelet makes before it calls a driver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nvdra_nodeagent.claims.model import ClaimRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.model import PreparedDevice


class ClaimNotUsable(Exception):
    """The Pod cannot have this claim now; the text is the kubelet's reason."""


@dataclass(frozen=True, slots=True)
class PodClaim:
    """A claim of a Pod. `owned`: made for this Pod alone, so it must belong to it."""

    name: str
    owned: bool
    used: bool


@dataclass(frozen=True, slots=True)
class UsableClaim:
    """A claim that passed the checks, with the drivers of its allocation, in order."""

    ref: ClaimRef
    drivers: tuple[str, ...]


def pod_uid(pod: Body) -> str:
    uid: str = pod["metadata"]["uid"]
    return uid


def containers(pod: Body) -> Iterator[Body]:
    """Init containers, then the main ones."""
    yield from pod["spec"].get("initContainers") or []
    yield from pod["spec"]["containers"]


def pod_claims(pod: Body) -> tuple[PodClaim, ...]:
    """The claims to prepare for a Pod. Raises `ClaimNotUsable` when one was not created yet."""
    used = {entry["name"] for container in containers(pod) for entry in _entries(container)}
    found = []
    for entry in pod["spec"].get("resourceClaims") or []:
        name = _claim_name(pod, entry)
        if name:
            owned = not entry.get("resourceClaimName")
            found.append(PodClaim(name, owned=owned, used=entry["name"] in used))
    extended = _extended(pod)
    if extended:
        found.append(PodClaim(extended["resourceClaimName"], owned=True, used=True))
    return tuple(found)


def known_claim_names(pod: Body) -> tuple[str, ...]:
    """The names of the Pod's claims as far as they exist: for the way back, which never fails."""
    status = {**pod, "spec": {**pod["spec"], "resourceClaims": _created(pod)}}
    return tuple(dict.fromkeys(claim.name for claim in pod_claims(status)))


def check_claim(pod: Body, claim: PodClaim, body: Body) -> UsableClaim:
    """The kubelet's checks before the first call. Raises `ClaimNotUsable`."""
    meta, pod_meta = body["metadata"], pod["metadata"]
    status = body.get("status") or {}
    if claim.owned and not _is_owned(meta, pod_uid(pod)):
        raise ClaimNotUsable(
            f"ResourceClaim {meta['namespace']}/{meta['name']} was not created for pod "
            f"{pod_meta['namespace']}/{pod_meta['name']} (pod is not owner)"
        )
    if pod_uid(pod) not in {entry.get("uid") for entry in status.get("reservedFor") or []}:
        raise ClaimNotUsable(
            f"pod {pod_meta['name']} ({pod_uid(pod)}) is not allowed to use "
            f"ResourceClaim {meta['name']} ({meta['uid']})"
        )
    if not status.get("allocation"):
        raise ClaimNotUsable(f"ResourceClaim {meta['namespace']}/{meta['name']} is not allocated")
    results = (status["allocation"].get("devices") or {}).get("results") or []
    ref = ClaimRef(namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])
    return UsableClaim(ref, tuple(dict.fromkeys(result["driver"] for result in results)))


def container_cdi_ids(
    pod: Body, container: Body, devices: Mapping[str, Sequence[PreparedDevice]]
) -> tuple[str, ...]:
    """CDI ids of one container, each once. `devices` are the prepared ones by claim name."""
    found: list[str] = []
    by_pod_name = {
        entry["name"]: _claim_name(pod, entry)
        for entry in pod["spec"].get("resourceClaims") or []
    }  # fmt: skip
    for entry in _entries(container):
        claim = by_pod_name.get(entry["name"])
        if claim:
            found += _ids(devices.get(claim, ()), entry.get("request", ""))
    extended = _extended(pod) or {}
    for mapping in extended.get("requestMappings") or []:
        if mapping["containerName"] == container["name"]:
            claimed = devices.get(extended["resourceClaimName"], ())
            found += _ids(claimed, mapping["requestName"])
    return tuple(dict.fromkeys(found))


def _ids(devices: Iterable[PreparedDevice], request: str) -> Iterator[str]:
    for device in devices:
        if not request or not device.requests or request in device.requests:
            yield from device.cdi_ids


def _entries(container: Body) -> list[dict[str, Any]]:
    return (container.get("resources") or {}).get("claims") or []


def _extended(pod: Body) -> dict[str, Any] | None:
    """KEP-5004: devices that the scheduler claimed for `nvidia.com/gpu: 1` and the like."""
    return (pod.get("status") or {}).get("extendedResourceClaimStatus")


def _statuses(pod: Body) -> dict[str, str | None]:
    entries = (pod.get("status") or {}).get("resourceClaimStatuses") or []
    return {entry["name"]: entry.get("resourceClaimName") for entry in entries}


def _claim_name(pod: Body, entry: Body) -> str | None:
    """The claim behind an entry of `spec.resourceClaims`; None where none is needed."""
    direct: str = entry.get("resourceClaimName") or ""
    if direct:
        return direct
    statuses = _statuses(pod)
    if entry["name"] not in statuses:
        raise ClaimNotUsable(
            f"ResourceClaim for {entry['name']} of pod {pod['metadata']['namespace']}/"
            f"{pod['metadata']['name']} was not created yet"
        )
    return statuses[entry["name"]]


def _created(pod: Body) -> list[dict[str, Any]]:
    statuses = _statuses(pod)
    entries = pod["spec"].get("resourceClaims") or []
    return [entry for entry in entries if "resourceClaimName" in entry or entry["name"] in statuses]


def _is_owned(meta: Body, uid: str) -> bool:
    owners = meta.get("ownerReferences") or []
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)
