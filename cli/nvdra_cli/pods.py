"""What became of pods: their phase, their devices, and the reason when they do not run. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nvdra_api.names import GPU_DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Body = dict[str, Any]
Key = tuple[str, str]

RUNS = ("Running", "Succeeded")
ENDED = ("Succeeded", "Failed")

_BEFORE_SCHEDULING = ("FailedScheduling", "FailedResourceClaimCreation")
_STARTING = ("", "ContainerCreating", "PodInitializing")
_USERS_MISTAKE = re.compile(
    r"\[(InvalidConfig|ConfigMismatch|SharingUnsupported|MalformedClaim|CdiSpecInvalid)\]"
    r"|: InvalidImageName:"
)


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
    """A pod as the report shows it. `reason` is empty while nothing is wrong.

    `containers` are those to show the output of: the main ones, and init containers that failed.
    """

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
        """A pod whose container crashes again and again has the phase Running, but does not run."""
        return self.phase in RUNS and not self.reason

    @property
    def is_retried(self) -> bool:
        """Whether the node tries again to start the pod, and might succeed."""
        waits = self.phase == "Pending" and bool(self.node)
        return waits and not self.is_final and "ended with exit code" not in self.reason

    @property
    def is_final(self) -> bool:
        """Whether time changes nothing about the pod any more."""
        return self.phase in ENDED or bool(_USERS_MISTAKE.search(self.reason))


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The API's objects at one moment, by namespace and name.

    `allocated_claims` also holds claims that have given their devices back, as they were before.
    """

    pods: Mapping[Key, Body]
    claims: Mapping[Key, Body]
    allocated_claims: Mapping[Key, Body]
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
    failed_first = [entry["name"] for entry in _init_statuses(pod) if _trouble(entry)]
    claims = view.allocated_claims if phase in ENDED else view.claims
    return PodView(
        namespace=meta["namespace"],
        name=meta["name"],
        phase=phase,
        node=spec.get("nodeName", ""),
        reason=_reason(pod, view.events.values()),
        claims=tuple(_claim_views(pod, claims, uuids)),
        containers=(*failed_first, *(container["name"] for container in spec["containers"])),
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
    """The most telling of: a failed container, the scheduler's verdict, the newest warning."""
    status = pod.get("status", {})
    phase = status.get("phase", "Pending")
    if phase == "Succeeded":
        return ""
    for entry in (*_init_statuses(pod), *status.get("containerStatuses", ())):
        if trouble := _trouble(entry):
            return trouble
    if phase == "Running":
        return ""
    if status.get("message"):
        return str(status["message"])
    if _lacks_claims(pod) and (
        unmade := _newest_warning(pod, events, reason="FailedResourceClaimCreation")
    ):
        return unmade
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message", ""))
    return _newest_warning(pod, events)


def _lacks_claims(pod: Body) -> bool:
    """Whether claims are still to be made for it; what was said of that before is no news later."""
    made = {entry["name"] for entry in pod.get("status", {}).get("resourceClaimStatuses", ())}
    claims = pod["spec"].get("resourceClaims", ())
    return any(not c.get("resourceClaimName") and c["name"] not in made for c in claims)


def _init_statuses(pod: Body) -> list[Body]:
    return list(pod.get("status", {}).get("initContainerStatuses", ()))


def _trouble(entry: Body) -> str:
    """What is wrong with a container, by its entry in the pod's status."""
    name, state = entry["name"], entry.get("state", {})
    ended, waiting = state.get("terminated", {}), state.get("waiting", {})
    if ended.get("exitCode"):
        return _ending(name, ended)
    if waiting.get("reason", "") in _STARTING:
        return ""
    last = entry.get("lastState", {}).get("terminated", {})
    if not last:
        return f"container {name}: {waiting['reason']}: {waiting.get('message', '')}"
    return f"{_ending(name, last)} ({waiting['reason']})" if last["exitCode"] else ""


def _ending(name: str, ended: Body) -> str:
    text = f"container {name} ended with exit code {ended['exitCode']}"
    return f"{text}: {ended['message']}" if ended.get("message") else text


def _newest_warning(pod: Body, events: Iterable[Body], *, reason: str = "") -> str:
    """Of all warnings, or of those with this reason."""
    warnings = [event for event in _warnings(pod, events) if reason in ("", event.get("reason"))]
    return str(max(warnings, key=_age, default={}).get("message", ""))


def _warnings(pod: Body, events: Iterable[Body]) -> Iterator[Body]:
    """Once the pod has a node, what was said before about finding one is no news. What the driver
    says of a claim, the kubelet says too, with the claim's and the reason's name."""
    uid, has_node = pod["metadata"].get("uid"), bool(pod["spec"].get("nodeName"))
    for event in events:
        concerns = event.get("type") == "Warning" and event["involvedObject"].get("uid") == uid
        is_old = has_node and event.get("reason") in _BEFORE_SCHEDULING
        if concerns and not is_old and event.get("source", {}).get("component") != GPU_DRIVER:
            yield event


def _age(event: Body) -> tuple[str, int]:
    """Larger is newer; times have whole seconds, revisions tell events of one second apart."""
    revision = str(event["metadata"].get("resourceVersion", ""))
    return str(event.get("lastTimestamp", "")), int(revision) if revision.isdigit() else 0
