"""Label and field selectors, parsed once and matched often."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from nvdra_sim.cluster.apiserver.refusals import bad_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType

Operator: TypeAlias = Literal["exists", "!", "in", "notin", ">", "<"]

_KEY = r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?"
_SET = re.compile(rf"^({_KEY})\s+(in|notin)\s*\(([^()]*)\)$")
_COMPARE = re.compile(rf"^({_KEY})\s*(==|!=|=|>|<)\s*([A-Za-z0-9._-]*)$")
_PRESENCE = re.compile(rf"^(!?)\s*({_KEY})$")
_OUTER_COMMA = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
        return value is not None and _compare(value, self.operator, next(iter(self.values)))


@dataclass(frozen=True, slots=True)
class Selector:
    """What a list or watch asks for; an empty one matches everything."""

    labels: tuple[LabelRequirement, ...] = ()
    fields: tuple[tuple[str, bool, str], ...] = ()
    """(path, equal, value)"""

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, body: Body) -> bool:
        if self.labels:
            labels = body.get("metadata", {}).get("labels") or {}
            if not all(requirement.matches(labels) for requirement in self.labels):
                return False
        return all(
            (field_value(body, path) == value) is equal for path, equal, value in self.fields
        )


def parse_selector(kind: ResourceType, *, labels: str = "", fields: str = "") -> Selector:
    """Raises `BadRequest` for syntax errors and for fields that this resource cannot select by."""
    if not labels and not fields:
        return Selector()
    return Selector(labels=parse_labels(labels), fields=_parse_fields(kind, fields))


def parse_labels(text: str) -> tuple[LabelRequirement, ...]:
    if not text.strip():
        return ()
    return tuple(_parse_requirement(part.strip(), text) for part in _OUTER_COMMA.split(text))


def _parse_requirement(part: str, whole: str) -> LabelRequirement:
    if found := _SET.match(part):
        values = frozenset(value.strip() for value in found[4].split(","))
        return LabelRequirement(found[1], "in" if found[3] == "in" else "notin", values)
    if found := _COMPARE.match(part):
        return LabelRequirement(found[1], _OPERATORS[found[3]], frozenset({found[4]}))
    if found := _PRESENCE.match(part):
        return LabelRequirement(found[2], "!" if found[1] else "exists")
    raise bad_request(f"unable to parse requirement {part!r} of label selector {whole!r}")


_OPERATORS: dict[str, Operator] = {
    "=": "in",
    "==": "in",
    "!=": "notin",
    ">": ">",
    "<": "<",
}


def _compare(value: str, operator: str, bound: str) -> bool:
    try:
        return int(value) > int(bound) if operator == ">" else int(value) < int(bound)
    except ValueError:
        return False


_FIELD = re.compile(r"^([A-Za-z0-9._\[\]]+)\s*(==|!=|=)\s*(.*)$")
_OBJECT_FIELDS = frozenset({"metadata.name", "metadata.namespace"})
_MORE_FIELDS: dict[tuple[str, str], frozenset[str]] = {
    ("", "namespaces"): frozenset({"status.phase"}),
    ("", "nodes"): frozenset({"spec.unschedulable"}),
    ("", "secrets"): frozenset({"type"}),
    ("", "pods"): frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        }
    ),
    ("", "events"): frozenset(
        {
            *(
                f"involvedObject.{name}"
                for name in (
                    "kind",
                    "namespace",
                    "name",
                    "uid",
                    "apiVersion",
                    "resourceVersion",
                    "fieldPath",
                )
            ),
            "reason",
            "reportingComponent",
            "source",
            "type",
        }
    ),
    ("apps", "replicasets"): frozenset({"status.replicas"}),
    ("batch", "jobs"): frozenset({"status.successful"}),
    ("resource.k8s.io", "resourceslices"): frozenset({"spec.nodeName", "spec.driver"}),
}
_SPECIAL: dict[str, Callable[[Body], str]] = {
    "source": lambda body: str((body.get("source") or {}).get("component", "")),
    "spec.unschedulable": lambda body: str(
        bool((body.get("spec") or {}).get("unschedulable"))
    ).lower(),
}


def _parse_fields(kind: ResourceType, text: str) -> tuple[tuple[str, bool, str], ...]:
    terms = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _FIELD.match(part)
        if not found:
            raise bad_request(f"invalid field selector {text!r}: cannot read {part!r}")
        path, operator, value = found[1], found[2], found[3].strip()
        if path not in _OBJECT_FIELDS and path not in _MORE_FIELDS.get(kind.key, frozenset()):
            raise bad_request(
                f'Unable to find "{kind.qualified}" that match field selector {text!r}:'
                f" field label not supported: {path}"
            )
        terms.append((path, operator != "!=", value))
    return tuple(terms)


def field_value(body: Body, path: str) -> str:
    """The value at a dotted path as field selectors see it: absent is the empty string."""
    if path in _SPECIAL:
        return _SPECIAL[path](body)
    node: object = body
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    if node is None:
        return ""
    return str(node).lower() if isinstance(node, bool) else str(node)
