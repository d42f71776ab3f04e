"""What a Pod's status says, computed from what its containers are doing. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nvdra_kube.api import Body

START_ERROR = "StartError"
"""The reason of a container whose command could not be started."""

Phase: TypeAlias = Literal["Pending", "Running", "Succeeded", "Failed"]


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Waiting:
    reason: str = "ContainerCreating"
    message: str = ""

    def body(self) -> Body:
        return {"waiting": _without_empty(reason=self.reason, message=self.message)}


@dataclass(frozen=True, slots=True)
class Running:
    started_at: str

    def body(self) -> Body:
        return {"running": {"startedAt": self.started_at}}


@dataclass(frozen=True, slots=True)
class Terminated:
    exit_code: int
    reason: str
    started_at: str
    finished_at: str
    message: str = ""

    def body(self) -> Body:
        fields = _without_empty(reason=self.reason, message=self.message)
        times = {"startedAt": self.started_at, "finishedAt": self.finished_at}
        return {"terminated": {"exitCode": self.exit_code, **fields, **times}}


ContainerState: TypeAlias = Waiting | Running | Terminated


@dataclass(slots=True)
class ContainerRecord:
    """One container of a Pod, through all its restarts."""

    name: str
    image: str
    init: bool = False
    state: ContainerState = field(default_factory=Waiting)
    last: Terminated | None = None
    restarts: int = 0
    passes: bool = True
    """What its probes said last; without probes it passes."""

    @property
    def running(self) -> bool:
        return isinstance(self.state, Running)

    @property
    def ready(self) -> bool:
        return self.running and self.passes

    @property
    def succeeded(self) -> bool:
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    @property
    def has_run(self) -> bool:
        """Whether its command was ever started, or is to be started once more after a failure."""
        if isinstance(self.state, Terminated) and self.state.reason == START_ERROR:
            return self.last is not None
        return self.last is not None or not isinstance(self.state, Waiting)

    def body(self) -> Body:
        ready = self.succeeded if self.init else self.ready
        return {
            "name": self.name,
            "image": self.image,
            "imageID": f"stand-in/{self.image}",
            "ready": ready,
            "started": self.running,
            "restartCount": self.restarts,
            "state": self.state.body(),
            "lastState": self.last.body() if self.last else {},
        }


def records_of(pod: Body) -> list[ContainerRecord]:
    """Fresh records, init containers first."""
    spec = pod["spec"]
    return [
        *(_record(entry, init=True) for entry in spec.get("initContainers") or []),
        *(_record(entry, init=False) for entry in spec["containers"]),
    ]


def should_restart(policy: str, exit_code: int, *, init: bool) -> bool:
    """Whether a container that ended is started again. Init containers only until they succeed."""
    if policy == "Always":
        return not init or exit_code != 0
    return policy == "OnFailure" and exit_code != 0


def current_phase(records: Iterable[ContainerRecord]) -> Phase:
    """The phase while the Pod lives: it becomes terminal only when its claims are given back."""
    return "Running" if any(record.has_run and not record.init for record in records) else "Pending"


def final_phase(records: Sequence[ContainerRecord]) -> Phase:
    return "Succeeded" if all(record.succeeded for record in records) else "Failed"


def pod_status(
    records: Sequence[ContainerRecord],
    *,
    phase: Phase,
    start_time: str,
    conditions: Sequence[Body],
    reason: str = "",
    message: str = "",
    address: str = "",
) -> Body:
    """The fields of `status` that belong to the kubelet. `conditions` are those of the Pod now."""
    main = [record for record in records if not record.init]
    ended = phase in ("Succeeded", "Failed")
    ready = not ended and all(record.ready for record in main)
    initialized = all(record.succeeded for record in records if record.init)
    facts = {
        "PodReadyToStartContainers": phase == "Running" or any(r.has_run for r in records),
        "Initialized": initialized,
        "ContainersReady": ready,
        "Ready": ready,
    }
    why = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
    status: Body = {
        "phase": phase,
        "startTime": start_time,
        "conditions": _conditions(conditions, facts, why),
        "containerStatuses": [record.body() for record in main],
        "reason": reason or None,
        "message": message or None,
    }
    if address:
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    if len(main) != len(records):
        status["initContainerStatuses"] = [record.body() for record in records if record.init]
    return status


def _conditions(now: Sequence[Body], facts: dict[str, bool], why: str) -> list[Body]:
    """Ours renewed, everybody else's kept; the time changes only with the status."""
    kept = {condition["type"]: condition for condition in now}
    for kind, holds in facts.items():
        text = str(holds)
        old = kept.get(kind)
        same = old is not None and old["status"] == text
        since = old["lastTransitionTime"] if old is not None and same else timestamp()
        condition: dict[str, Any] = {"type": kind, "status": text, "lastTransitionTime": since}
        if not holds and kind in ("ContainersReady", "Ready"):
            condition["reason"] = why
        kept[kind] = condition
    return list(kept.values())


def _record(container: Body, *, init: bool) -> ContainerRecord:
    return ContainerRecord(container["name"], container.get("image", ""), init=init)


def _without_empty(**fields: str) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}
