"""Which nodes a selector means, and whether a node takes a pod at all.

Only what can be read from the Node and Pod objects; devices are the allocator's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nvdra_kube.api import Body

_KEEPS_PODS_OFF: Final = ("NoSchedule", "NoExecute")
# Resources that every node has; anything else must be offered in status.allocatable.
_ORDINARY_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage", "storage")


def name_of(node: Body) -> str:
    name: str = node["metadata"]["name"]
    return name


def selector_matches(selector: Body, node: Body) -> bool:
    """Whether a NodeSelector (core/v1) matches: any of its terms, all requirements of the term.

    A term without requirements matches nothing, as the API defines it.
    """
    terms: Sequence[Body] = selector.get("nodeSelectorTerms") or []
    return any(_term_matches(term, node) for term in terms)


def _term_matches(term: Body, node: Body) -> bool:
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    fields = {"metadata.name": name_of(node)}
    by_label: Sequence[Body] = term.get("matchExpressions") or []
    by_field: Sequence[Body] = term.get("matchFields") or []
    if not by_label and not by_field:
        return False
    return all(_holds(need, labels) for need in by_label) and all(
        _holds(need, fields) for need in by_field
    )


def _holds(requirement: Body, present: Mapping[str, str]) -> bool:
    key, operator = requirement["key"], requirement["operator"]
    values: Sequence[str] = requirement.get("values") or []
    match operator:
        case "In":
            return present.get(key) in values
        case "NotIn":
            return present.get(key) not in values
        case "Exists":
            return key in present
        case "DoesNotExist":
            return key not in present
        case "Gt" | "Lt":
            return _compares(operator, present.get(key, ""), values)
    return False


def _compares(operator: str, present: str, values: Sequence[str]) -> bool:
    try:
        left, right = int(present), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right


def tolerates(taint: Body, tolerations: Iterable[Body]) -> bool:
    """Whether one of the tolerations covers the taint: the same rule for nodes and devices."""
    return any(_covers(toleration, taint) for toleration in tolerations)


def _covers(toleration: Body, taint: Body) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    same_key = toleration.get("key") == taint.get("key")
    return same_key and (toleration.get("value") or "") == (taint.get("value") or "")


def untolerated(taints: Iterable[Body], tolerations: Sequence[Body]) -> list[Body]:
    """The taints that keep something off. Unknown effects, and `None`, keep nothing off."""
    return [
        taint
        for taint in taints
        if taint.get("effect") in _KEEPS_PODS_OFF and not tolerates(taint, tolerations)
    ]


def obstacle(pod: Body, node: Body) -> str:
    """Why the pod cannot run on the node, leaving devices aside; "" if it can."""
    spec = node.get("spec") or {}
    if not _is_ready(node):
        return "the node is not ready"
    tolerations = pod["spec"].get("tolerations") or []
    taints: list[Body] = list(spec.get("taints") or [])
    if spec.get("unschedulable"):
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    if kept_off := untolerated(taints, tolerations):
        return f"the pod does not tolerate the node's taint {_taint_text(kept_off[0])}"
    return selection_obstacle(pod, node) or _resource_obstacle(pod, node)


def _is_ready(node: Body) -> bool:
    conditions: Iterable[Body] = (node.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _taint_text(taint: Body) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint.get('key', '')}{value}:{taint.get('effect', '')}"


def selection_obstacle(pod: Body, node: Body) -> str:
    """Why the pod (or pod template) does not select the node; "" if it does."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    wanted: Mapping[str, str] = pod["spec"].get("nodeSelector") or {}
    for key, value in wanted.items():
        if labels.get(key) != value:
            return f"the pod's nodeSelector wants the label {key}={value}"
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required and not selector_matches(required, node):
        return "the pod's required node affinity does not match"
    return ""


def _resource_obstacle(pod: Body, node: Body) -> str:
    offered: Mapping[str, str] = (node.get("status") or {}).get("allocatable") or {}
    for container in pod["spec"].get("containers") or []:
        resources = container.get("resources") or {}
        for name in (resources.get("limits") or {}) | (resources.get("requests") or {}):
            if _is_extended(name) and name not in offered:
                return f"the node does not offer the resource {name}"
    return ""


def _is_extended(name: str) -> bool:
    return name not in _ORDINARY_RESOURCES and not name.startswith("hugepages-")
