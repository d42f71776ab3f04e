"""No plan is made from copies that do not show our own last writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_kube.resources import NODES, PODS
from nvdra_operator.domains.expectations import Expectations

if TYPE_CHECKING:
    from nvdra_kube.api import Body, Resource
    from nvdra_kube.informer import Key


def an_object(version: int = 5, *, uid: str = "u", dying: bool = False) -> Body:
    meta = {"name": "a", "namespace": "n", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": {**meta, **({"deletionTimestamp": "now"} if dying else {})}}


def settled(expectations: Expectations, found: Body | None, *, now_s: float = 0.0) -> bool:
    def look(resource: Resource, key: Key) -> Body | None:
        return found if (resource, key) == (PODS, ("n", "a")) else None

    return expectations.settled(look, now_s=now_s)


@pytest.mark.parametrize(
    ("found", "met"),
    [
        (an_object(4), False),
        (an_object(5), True),
        (an_object(6), True),
        (an_object(1, uid="another"), True),
        (None, True),
    ],
)
def test_a_write_is_seen_in_a_version_as_new(found: Body | None, met: bool) -> None:
    expectations = Expectations()
    expectations.wrote(PODS, an_object(5), now_s=0.0)
    assert settled(expectations, found) is met


def test_an_object_that_was_made_has_to_appear() -> None:
    expectations = Expectations()
    expectations.wrote(PODS, an_object(5), now_s=0.0, created=True)
    assert not settled(expectations, None)
    assert settled(expectations, an_object(5))


@pytest.mark.parametrize(
    ("found", "met"),
    [
        (an_object(9), False),
        (an_object(9, dying=True), True),
        (an_object(9, uid="another"), True),
        (None, True),
    ],
)
def test_a_deletion_is_seen_when_the_object_goes(found: Body | None, met: bool) -> None:
    expectations = Expectations()
    expectations.removed(PODS, ("n", "a"), uid="u", now_s=0.0)
    assert settled(expectations, found) is met


def test_a_copy_that_never_catches_up_is_not_waited_for() -> None:
    expectations = Expectations()
    expectations.wrote(PODS, an_object(5), now_s=0.0)
    assert not settled(expectations, an_object(4), now_s=4.9)
    assert not settled(expectations, an_object(4), now_s=expectations.due_s())
    assert settled(expectations, an_object(4), now_s=expectations.due_s())


def test_after_a_standstill_the_copy_has_a_moment_to_catch_up() -> None:
    expectations = Expectations()
    expectations.wrote(PODS, an_object(5), now_s=0.0)
    assert not settled(expectations, an_object(4), now_s=20.0)
    assert not settled(expectations, an_object(4), now_s=20.9)
    assert expectations.due_s() == 21.0
    assert settled(expectations, an_object(5), now_s=20.95)


def test_all_of_them_have_to_be_met() -> None:
    expectations = Expectations()
    expectations.wrote(PODS, an_object(5), now_s=0.0)
    node = {"metadata": {"name": "a", "uid": "u", "resourceVersion": "5"}}
    expectations.wrote(NODES, node, now_s=0.0, created=True)
    assert not settled(expectations, an_object(5))
