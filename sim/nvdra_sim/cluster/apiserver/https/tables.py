"""Tables: how kubectl wants lists printed, with the columns people know from real clusters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType, TypeKey

    Cell = Callable[[Body], Any]


class Column(Protocol):
    """What a column is called, and what is in it: a time where `type` is `date`."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def priority(self) -> int: ...

    def text(self, item: Body) -> str | None: ...


def wants_table(accept: str) -> bool:
    """Whether a client prefers a v1 Table to the objects themselves."""
    first = accept.split(",")[0]
    return "as=Table" in first and "v=v1;" in f"{first};".replace(" ", "")


def table_of(kind: ResourceType, answer: Body, *, now: str) -> Body:
    """The Table of one object or of a list."""
    items = answer.get("items", [answer])
    columns = kind.columns or _BUILT_IN.get(kind.key) or (_AGE,)
    meta = answer.get("metadata") or {}
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": meta.get("resourceVersion", "")},
        "columnDefinitions": [_definition(_NAME), *map(_definition, columns)],
        "rows": [_row(item, columns, now) for item in items],
    }


def _definition(column: Column) -> Body:
    return {
        "name": column.name,
        "type": column.type,
        "format": "name" if column is _NAME else "",
        "description": column.description or column.name,
        "priority": column.priority,
    }


def _row(item: Body, columns: Sequence[Column], now: str) -> Body:
    meta = item["metadata"]
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    cells = [meta["name"], *(_cell(column, item, now) for column in columns)]
    return {"cells": cells, "object": partial}


def _cell(column: Column, item: Body, now: str) -> str | None:
    text = column.text(item)
    return _age(text, now) if column.type == "date" else text


def _age(created: str | None, now: str) -> str:
    if not created:
        return "<unknown>"
    seconds = max(0, int((_moment(now) - _moment(created)).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _at(*path: str) -> Cell:
    def cell(item: Body) -> Any:
        node: Any = item
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        return "<none>" if node is None or node == "" else str(node)

    return cell


def _ready_containers(pod: Body) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ready = sum(1 for status in statuses if status.get("ready"))
    return f"{ready}/{len(pod['spec']['containers'])}"


def _pod_status(pod: Body) -> str:
    status = pod.get("status") or {}
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        reason = (state.get("waiting") or state.get("terminated") or {}).get("reason")
        if reason:
            return str(reason)
    phase = str(status.get("reason") or status.get("phase") or "Unknown")
    return "Completed" if phase == "Succeeded" else phase


def _restarts(pod: Body) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return str(sum(status.get("restartCount", 0) for status in statuses))


def _node_status(node: Body) -> str:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    words = ["Ready" if ready else "NotReady"]
    if (node.get("spec") or {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _claim_state(claim: Body) -> str:
    status = claim.get("status") or {}
    words = [
        word
        for word, holds in (
            ("deleted", "deletionTimestamp" in claim["metadata"]),
            ("allocated", bool(status.get("allocation"))),
            ("reserved", bool(status.get("reservedFor"))),
        )
        if holds
    ]
    return ",".join(words) or "pending"


@dataclass(frozen=True, slots=True)
class _Column:
    """A `Column` that is computed."""

    name: str
    cell: Cell
    type: str = "string"
    description: str = ""
    priority: int = 0

    def text(self, item: Body) -> Any:
        return self.cell(item)


_NAME: Final = _Column("Name", _at("metadata", "name"))
_AGE: Final = _Column("Age", lambda item: item["metadata"].get("creationTimestamp"), "date")

_COLUMNS: Mapping[TypeKey, Mapping[str, Cell]] = {
    ("", "namespaces"): {"Status": _at("status", "phase")},
    ("", "nodes"): {
        "Status": _node_status,
        "Version": _at("status", "nodeInfo", "kubeletVersion"),
    },
    ("", "pods"): {
        "Ready": _ready_containers,
        "Status": _pod_status,
        "Restarts": _restarts,
        "Node": _at("spec", "nodeName"),
    },
    ("", "events"): {
        "Type": _at("type"),
        "Reason": _at("reason"),
        "Object": lambda event: "/".join(
            str((event.get("involvedObject") or {}).get(name, "")).lower()
            for name in ("kind", "name")
        ),
        "Message": _at("message"),
    },
    ("apps", "deployments"): {
        "Desired": _at("spec", "replicas"),
        "Available": _at("status", "availableReplicas"),
    },
    ("apps", "replicasets"): {
        "Desired": _at("spec", "replicas"),
        "Ready": _at("status", "readyReplicas"),
    },
    ("apps", "daemonsets"): {
        "Desired": _at("status", "desiredNumberScheduled"),
        "Ready": _at("status", "numberReady"),
    },
    ("batch", "jobs"): {
        "Completions": _at("spec", "completions"),
        "Succeeded": _at("status", "succeeded"),
    },
    ("coordination.k8s.io", "leases"): {"Holder": _at("spec", "holderIdentity")},
    ("resource.k8s.io", "resourceclaims"): {"State": _claim_state},
    ("resource.k8s.io", "resourceslices"): {
        "Node": _at("spec", "nodeName"),
        "Driver": _at("spec", "driver"),
        "Pool": _at("spec", "pool", "name"),
    },
}

_BUILT_IN: Final = {
    key: (*(_Column(name, cell) for name, cell in cells.items()), _AGE)
    for key, cells in _COLUMNS.items()
}
