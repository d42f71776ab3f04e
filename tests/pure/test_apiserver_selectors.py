"""Label and field selectors of the embedded API server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_kube.errors import BadRequest
from nvdra_sim.cluster.apiserver.catalog import Catalog, ResourceType
from nvdra_sim.cluster.apiserver.selectors import parse_labels, parse_selector

LABELS = {"app": "web", "tier": "front", "size": "7"}


def a_type(plural: str, group: str = "") -> ResourceType:
    return Catalog().at(group, "v1", plural)


@pytest.mark.parametrize(
    "text",
    [
        "app=web",
        "app==web",
        "app!=db",
        "app in (web, db)",
        "app notin (db)",
        "app",
        "!gone",
        "missing!=x",
        "missing notin (x)",
        "size>6",
        "size<8",
        "app=web,tier in (front,back),!gone",
        "",
    ],
)
def test_these_select_the_object(text: str) -> None:
    selector = parse_selector(a_type("pods"), labels=text)
    assert selector.matches({"metadata": {"labels": LABELS}})


@pytest.mark.parametrize(
    "text", ["app=db", "app!=web", "app in (db)", "app notin (web)", "!app", "gone", "size>7"]
)
def test_these_do_not(text: str) -> None:
    assert not all(requirement.matches(LABELS) for requirement in parse_labels(text))


@pytest.mark.parametrize("text", ["app=web=x", "app in web", "app in (a", "=x", "a b", ",,", "a,"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="unable to parse requirement"):
        parse_labels(text)


@given(
    key=st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9})?", fullmatch=True),
    value=st.text("ab1", max_size=5),
)
def test_equality_selects_exactly_its_value(key: str, value: str) -> None:
    [requirement] = parse_labels(f"{key}={value}")
    assert requirement.matches({key: value})
    assert not requirement.matches({key: f"{value}x"})


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("spec.nodeName=n1", True),
        ("spec.nodeName!=n1", False),
        ("spec.nodeName=", False),
        ("status.phase=", True),
        ("metadata.name=p,metadata.namespace=ns", True),
        ("metadata.name=p,spec.nodeName=n2", False),
    ],
)
def test_fields_are_compared_as_text(text: str, selected: bool) -> None:
    body = {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"nodeName": "n1"}}
    assert parse_selector(a_type("pods"), fields=text).matches(body) is selected


def test_an_unschedulable_node_is_found_by_its_flag() -> None:
    selector = parse_selector(a_type("nodes"), fields="spec.unschedulable=false")
    assert selector.matches({"metadata": {}, "spec": {}})
    assert not selector.matches({"metadata": {}, "spec": {"unschedulable": True}})


def test_slices_are_selected_by_driver_and_node() -> None:
    kind = a_type("resourceslices", "resource.k8s.io")
    selector = parse_selector(kind, fields="spec.driver=d,spec.nodeName=n")
    assert selector.matches({"metadata": {}, "spec": {"driver": "d", "nodeName": "n"}})
    assert not selector.matches({"metadata": {}, "spec": {"driver": "d"}})


def test_events_are_selected_by_what_they_are_about() -> None:
    selector = parse_selector(a_type("events"), fields="involvedObject.uid=u")
    assert selector.matches({"metadata": {}, "involvedObject": {"uid": "u"}})


def test_other_fields_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.foo"):
        parse_selector(a_type("pods"), fields="spec.foo=x")
