"""Node selectors, taints, and what keeps a pod off a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nvdra_sim.cluster.scheduler.nodes import obstacle, selector_matches, tolerates, untolerated
from nvdra_testing.dra_objects import a_node, a_pod

if TYPE_CHECKING:
    from nvdra_kube.api import Body

NODE = a_node("node-a", labels={"zone": "z1", "gpus": "8"})


def terms(*needs: Body, field: str = "matchExpressions") -> Body:
    return {"nodeSelectorTerms": [{field: list(needs)}]}


def need(key: str, operator: str, *values: str) -> Body:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (need("zone", "In", "z1", "z2"), True),
        (need("zone", "In", "z2"), False),
        (need("zone", "NotIn", "z2"), True),
        (need("missing", "NotIn", "x"), True),
        (need("zone", "Exists"), True),
        (need("missing", "Exists"), False),
        (need("missing", "DoesNotExist"), True),
        (need("gpus", "Gt", "7"), True),
        (need("gpus", "Gt", "8"), False),
        (need("gpus", "Lt", "9"), True),
        (need("zone", "Gt", "1"), False),
        (need("zone", "Resembles", "z1"), False),
    ],
)
def test_a_requirement_holds_by_its_operator(requirement: Body, expected: bool) -> None:
    assert selector_matches(terms(requirement), NODE) is expected


def test_terms_are_alternatives_and_requirements_are_not() -> None:
    good, bad = need("zone", "Exists"), need("missing", "Exists")
    assert not selector_matches(terms(good, bad), NODE)
    either = {"nodeSelectorTerms": [{"matchExpressions": [x]} for x in (bad, good)]}
    assert selector_matches(either, NODE)


def test_an_empty_selector_and_an_empty_term_match_nothing() -> None:
    assert not selector_matches({}, NODE)
    assert not selector_matches({"nodeSelectorTerms": [{}]}, NODE)


def test_a_node_is_matched_by_name() -> None:
    assert selector_matches(terms(need("metadata.name", "In", "node-a"), field="matchFields"), NODE)
    assert not selector_matches(
        terms(need("metadata.name", "In", "node-b"), field="matchFields"), NODE
    )


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "gpu", "value": "h100"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "a100"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_a_toleration_covers_a_taint(toleration: Body, expected: bool) -> None:
    taint = {"key": "gpu", "value": "h100", "effect": "NoSchedule"}
    assert tolerates(taint, [toleration]) is expected


def test_soft_and_unknown_taints_keep_nobody_off() -> None:
    taints = [{"key": "k", "effect": effect} for effect in ("PreferNoSchedule", "None", "New")]
    assert untolerated(taints, []) == []


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ({"status": {}}, "not ready"),
        ({"spec": {"unschedulable": True}}, "unschedulable:NoSchedule"),
        (
            {"spec": {"taints": [{"key": "a", "value": "b", "effect": "NoExecute"}]}},
            "a=b:NoExecute",
        ),
    ],
)
def test_the_obstacle_of_a_node_is_named(node: dict[str, Any], reason: str) -> None:
    assert reason in obstacle(a_pod(), {**NODE, **node})


def test_required_affinity_keeps_a_pod_off() -> None:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": terms(need("x", "Exists"))}
    pod = a_pod(affinity={"nodeAffinity": required})
    assert "node affinity" in obstacle(pod, NODE)


def test_a_resource_that_the_node_offers_is_no_obstacle() -> None:
    pod = a_pod()
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1", "cpu": "2"}}
    offering = {**NODE, "status": {**NODE["status"], "allocatable": {"nvidia.com/gpu": "1"}}}
    assert "nvidia.com/gpu" in obstacle(pod, NODE)
    assert obstacle(pod, offering) == ""
