"""The store: whatever lists and events come, what it tells adds up to what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from nvdra_kube.api import WatchEvent
from nvdra_kube.resources import PODS
from nvdra_kube.store import ObjectStore
from nvdra_testing.kube_script import added, an_object, deleted, modified

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nvdra_kube.api import Body
    from nvdra_kube.store import Change, Key

objects = st.builds(
    an_object,
    st.sampled_from("abc"),
    version=st.sampled_from("123"),
    uid=st.sampled_from(["first", "second"]),
)
lists = st.lists(objects, unique_by=lambda body: body["metadata"]["name"])
events = st.builds(WatchEvent, st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), objects)


def replayed(changes: Iterable[Change], mirror: dict[Key, Body]) -> None:
    """Does to `mirror` what the changes say, and checks that they may be said."""
    for change in changes:
        if change.type == "added":
            assert change.key not in mirror
            assert change.old is None
        else:
            assert mirror[change.key] == change.old
        if change.type == "deleted":
            del mirror[change.key]
        else:
            mirror[change.key] = change.object


@given(st.lists(st.one_of(lists, events), max_size=12))
def test_changes_add_up_to_the_store(story: list[list[Body] | WatchEvent]) -> None:
    store = ObjectStore(PODS)
    mirror: dict[Key, Body] = {}
    for turn in story:
        changes = store.apply(turn) if isinstance(turn, WatchEvent) else store.replace(turn)
        replayed(changes, mirror)
        assert mirror == store.objects


@given(lists, lists)
def test_after_a_list_the_store_is_the_list(before: list[Body], after: list[Body]) -> None:
    store = ObjectStore(PODS)
    store.replace(before)
    store.replace(after)
    assert sorted(key[1] for key in store.objects) == sorted(
        body["metadata"]["name"] for body in after
    )


@given(lists)
def test_the_same_list_again_is_no_change(bodies: list[Body]) -> None:
    store = ObjectStore(PODS)
    store.replace(bodies)
    assert store.replace(bodies) == []


def test_deletes_come_before_adds() -> None:
    store = ObjectStore(PODS)
    store.replace([an_object("b")])
    changes = store.replace([an_object("a")])
    assert [change.type for change in changes] == ["deleted", "added"]


def test_a_delete_carries_the_last_state() -> None:
    store = ObjectStore(PODS)
    store.apply(added("a", version="1", spec="old"))
    [change] = store.apply(deleted("a", version="2", spec="last"))
    assert change.object["spec"] == "last"


def test_a_delete_of_an_unknown_object_is_no_change() -> None:
    assert ObjectStore(PODS).apply(deleted("a")) == []


def test_a_modification_of_an_unknown_object_adds_it() -> None:
    [change] = ObjectStore(PODS).apply(modified("a"))
    assert change.type == "added"


def test_namespaces_keep_names_apart() -> None:
    store = ObjectStore(PODS)
    for namespace in ("one", "two"):
        body = an_object("a")
        body["metadata"]["namespace"] = namespace
        store.apply(WatchEvent("ADDED", body))
    assert set(store.objects) == {("one", "a"), ("two", "a")}
