"""What became of pods: their phase, their devices, and the reason when they do not run. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Body = dict[str, Any]
Key = tuple[str, str]

RUNS = ("Running", "Succeeded")


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One allocated device of a claim; `uuid` is what the ResourceSlice says."""

    driver: str
    pool: str
    device: str
    request: str
    uuid: str


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim of a pod, by the name of its object."""

    name: str
    devices: tuple[DeviceView, ...]


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod as the report shows it. `reason` is empty while nothing is wrong."""

    namespace: str
    name: str
    phase: str
    node: str
    reason: str
    claims: tuple[ClaimView, ...]
    containers: tuple[str, ...]
    ends_by_itself: bool

    @property
    def key(self) -> Key:
        return (self.namespace, self.name)

    @property
    def runs(self) -> bool:
        return self.phase in RUNS


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The API's objects at one moment, by namespace and name."""

    pods: Mapping[Key, Body]
    claims: Mapping[Key, Body]
    slices: Mapping[Key, Body]
    events: Mapping[Key, Body]
    workloads: Mapping[tuple[str, str, str], Body]  # by kind, namespace and name


def pod_views(view: ClusterView) -> list[PodView]:
    """All pods, by namespace and name."""
    uuids = _uuids(view.slices.values())
    return [_pod_view(pod, view, uuids) for _, pod in sorted(view.pods.items())]


def missing_pods(view: ClusterView) -> int:
    """How many pods Deployments, ReplicaSets and Jobs still have to make."""
    owned = [
        reference["uid"]
        for body in (*view.pods.values(), *view.workloads.values())
        for reference in body["metadata"].get("ownerReferences", ())
    ]
    missing = 0
    for (kind, _, _), body in view.workloads.items():
        wanted = _wanted(kind, body.get("spec", {}))
        missing += max(0, wanted - owned.count(body["metadata"]["uid"]))
    return missing


def _wanted(kind: str, spec: Body) -> int:
    """Objects that a workload owns when it is complete: pods, or one ReplicaSet."""
    if kind == "Deployment":
        return 1
    if kind == "Job":
        return int(min(spec.get("parallelism", 1), spec.get("completions", 1)))
    return int(spec.get("replicas", 1))


def _pod_view(pod: Body, view: ClusterView, uuids: Mapping[tuple[str, ...], str]) -> PodView:
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    phase = status.get("phase", "Pending")
    return PodView(
        namespace=meta["namespace"],
        name=meta["name"],
        phase=phase,
        node=spec.get("nodeName", ""),
        reason="" if phase in RUNS else _reason(pod, view.events.values()),
        claims=tuple(_claim_views(pod, view.claims, uuids)),
        containers=tuple(container["name"] for container in spec["containers"]),
        ends_by_itself=spec.get("restartPolicy", "Always") != "Always",
    )


def _claim_views(
    pod: Body, claims: Mapping[Key, Body], uuids: Mapping[tuple[str, ...], str]
) -> Iterable[ClaimView]:
    for name in claim_names(pod):
        claim = claims.get((pod["metadata"]["namespace"], name), {})
        allocation = claim.get("status", {}).get("allocation", {})
        devices = tuple(
            DeviceView(
                driver=result["driver"],
                pool=result["pool"],
                device=result["device"],
                request=result["request"],
                uuid=uuids.get((result["driver"], result["pool"], result["device"]), ""),
            )
            for result in allocation.get("devices", {}).get("results", ())
        )
        yield ClaimView(name=name, devices=devices)


def claim_names(pod: Body) -> list[str]:
    """Names of the claim objects that a pod uses, as far as they exist yet."""
    status = pod.get("status", {})
    made = {entry["name"]: entry for entry in status.get("resourceClaimStatuses", ())}
    names = [
        claim.get("resourceClaimName") or made.get(claim["name"], {}).get("resourceClaimName")
        for claim in pod["spec"].get("resourceClaims", ())
    ]
    names.append(status.get("extendedResourceClaimStatus", {}).get("resourceClaimName"))
    return [name for name in names if name]


def _uuids(slices: Iterable[Body]) -> dict[tuple[str, ...], str]:
    """UUIDs by driver, pool and device."""
    return {
        (spec["driver"], spec["pool"]["name"], device["name"]): device.get("attributes", {})
        .get("uuid", {})
        .get("string", "")
        for spec in (body["spec"] for body in slices)
        for device in spec.get("devices", ())
    }


def _reason(pod: Body, events: Iterable[Body]) -> str:
    """The most telling of: a failed container, the newest warning, the scheduler's verdict."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        ended = container.get("state", {}).get("terminated", {})
        if ended.get("exitCode"):
            return (
                f"container {container['name']} ended with exit code {ended['exitCode']} "
                f"{ended.get('message', '')}".strip()
            )
    if status.get("message"):
        return str(status["message"])
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message", ""))
    return _newest_warning(pod["metadata"].get("uid"), events)


def _newest_warning(uid: str | None, events: Iterable[Body]) -> str:
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning" and event.get("involvedObject", {}).get("uid") == uid
    ]
    newest = max(warnings, key=lambda event: str(event.get("lastTimestamp", "")), default={})
    return str(newest.get("message", ""))
