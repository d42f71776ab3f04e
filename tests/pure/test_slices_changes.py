"""Which writes a pool needs, given what is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.slices.body import API_VERSIONS, comparable
from nvdra_nodeagent.slices.changes import Accepted, Changes, Pool, plan_changes
from nvdra_nodeagent.slices.model import SliceContent, SliceDevice

if TYPE_CHECKING:
    from nvdra_kube.api import Body

POOL = Pool(driver="gpu.nvidia.com", node="node-1", name="node-1")


def contents(*values: int) -> list[SliceContent]:
    """One slice for each value, with one device that carries it."""
    return [
        SliceContent((SliceDevice(f"gpu-{index}", {"id": value}),))
        for index, value in enumerate(values)
    ]


@dataclass
class Shelf:
    """Stored slices of the pool, as an API server would keep them."""

    version: str = "v1"
    bodies: dict[str, Body] = field(default_factory=dict)
    revisions: count[int] = field(default_factory=lambda: count(1))

    def plan(self, desired: list[SliceContent], accepted: Accepted | None = None) -> Changes:
        return plan_changes(
            desired,
            self.bodies.values(),
            pool=POOL,
            version=self.version,
            accepted=accepted or Accepted(),
        )

    def take(self, changes: Changes, *, only: int | None = None) -> None:
        """Perform the first `only` of the changes."""
        steps: list[object] = [*changes.deletions, *changes.writes]
        for one in changes.deletions[:only]:
            del self.bodies[one.name]
        left = None if only is None else max(only - len(changes.deletions), 0)
        for write in changes.writes[:left]:
            if write.replaces is None:
                name = f"{POOL.generate_name(write.index)}{next(self.revisions):05d}"
                self.bodies[name] = {"metadata": {"name": name, "uid": name}, "spec": write.spec}
            else:
                stored = self.bodies[write.replaces.name]
                self.bodies[write.replaces.name] = {**stored, "spec": write.spec}
        assert steps or not changes

    def publish(self, *values: int) -> Changes:
        changes = self.plan(contents(*values))
        self.take(changes)
        return changes

    @property
    def generations(self) -> list[int]:
        return [body["spec"]["pool"]["generation"] for _, body in sorted(self.bodies.items())]

    def seen(self) -> list[Body] | None:
        """What schedulers make of the pool: the contents, or None while it is incomplete."""
        newest = max(self.generations, default=0)
        alive = [
            body["spec"]
            for _, body in sorted(self.bodies.items())
            if body["spec"]["pool"]["generation"] == newest
        ]
        if any(spec["pool"]["resourceSliceCount"] != len(alive) for spec in alive):
            return None
        return [device for spec in alive for device in comparable(spec)["devices"]]


def summary(changes: Changes) -> tuple[int, int, int]:
    """How many are deleted, updated, created."""
    updated = sum(write.replaces is not None for write in changes.writes)
    return len(changes.deletions), updated, len(changes.writes) - updated


def test_a_new_pool_starts_at_generation_one() -> None:
    changes = Shelf().plan(contents(1, 2))
    assert (changes.generation, summary(changes)) == (1, (0, 0, 2))


def test_what_is_stored_already_needs_no_write() -> None:
    shelf = Shelf()
    shelf.publish(1, 2, 3)
    assert not shelf.plan(contents(1, 2, 3))


@pytest.mark.parametrize("version", API_VERSIONS)
def test_a_restarted_agent_recognises_its_slices_in_every_version(version: str) -> None:
    shelf = Shelf(version=version)
    shelf.publish(1, 2)
    assert not shelf.plan(contents(1, 2))


def test_one_slice_changes_in_place() -> None:
    shelf = Shelf()
    shelf.publish(1, 2, 3)
    assert summary(shelf.publish(1, 9, 3)) == (0, 1, 0)
    assert shelf.generations == [1, 1, 1]


def test_two_slices_that_change_make_a_new_generation_of_all() -> None:
    shelf = Shelf()
    shelf.publish(1, 2, 3)
    assert summary(shelf.publish(8, 9, 3)) == (0, 3, 0)
    assert shelf.generations == [2, 2, 2]


def test_a_slice_more_makes_a_new_generation_of_all() -> None:
    shelf = Shelf()
    shelf.publish(1, 2)
    assert summary(shelf.publish(1, 2, 3)) == (0, 2, 1)
    assert shelf.generations == [2, 2, 2]


def test_a_slice_less_is_deleted_before_anything_is_written() -> None:
    shelf = Shelf()
    shelf.publish(1, 2)
    assert summary(shelf.publish(1)) == (1, 1, 0)
    assert shelf.generations == [1]


def test_a_slice_that_was_wiped_comes_back_alone() -> None:
    shelf = Shelf()
    shelf.publish(1, 2, 3)
    del shelf.bodies[sorted(shelf.bodies)[1]]
    assert summary(shelf.publish(1, 2, 3)) == (0, 0, 1)
    assert shelf.generations == [1, 1, 1]


def test_a_slice_that_somebody_changed_is_put_right() -> None:
    shelf = Shelf()
    shelf.publish(1, 2)
    next(iter(shelf.bodies.values()))["spec"]["devices"] = []
    assert summary(shelf.publish(1, 2)) == (0, 1, 0)


def test_a_rewrite_that_was_interrupted_is_finished_in_its_generation() -> None:
    shelf = Shelf()
    shelf.publish(1, 2, 3)
    shelf.take(shelf.plan(contents(7, 8, 9)), only=1)
    assert summary(shelf.publish(7, 8, 9)) == (0, 2, 0)
    assert shelf.generations == [2, 2, 2]


@pytest.mark.parametrize(
    "name",
    ["node-1-gpu.nvidia.com-abcde", "00000-gpu.nvidia.com-node-2-abcde", "0000-gpu.nvidia.com-x"],
)
def test_slices_under_other_names_give_way(name: str) -> None:
    shelf = Shelf()
    shelf.publish(1)
    (old,) = list(shelf.bodies)
    shelf.bodies = {name: {**shelf.bodies[old], "metadata": {"name": name}}}
    assert summary(shelf.plan(contents(1))) == (1, 0, 1)


def test_a_second_slice_with_the_same_index_gives_way() -> None:
    shelf = Shelf()
    shelf.publish(1)
    twin = POOL.generate_name(0) + "zzzzz"
    shelf.bodies[twin] = {**next(iter(shelf.bodies.values())), "metadata": {"name": twin}}
    changes = shelf.plan(contents(1))
    assert [one.name for one in changes.deletions] == [twin]


def test_a_slice_of_another_pool_of_this_driver_and_node_gives_way() -> None:
    shelf = Shelf()
    shelf.publish(1)
    next(iter(shelf.bodies.values()))["spec"]["pool"]["name"] = "old"
    assert summary(shelf.plan(contents(1))) == (1, 0, 1)


@pytest.mark.parametrize("field", ["driver", "nodeName"])
def test_a_slice_of_somebody_else_is_never_touched(field: str) -> None:
    shelf = Shelf()
    shelf.publish(1)
    next(iter(shelf.bodies.values()))["spec"][field] = "other"
    assert summary(shelf.plan(contents(1))) == (0, 0, 1)


def test_a_long_node_name_that_the_server_cut_is_still_recognised() -> None:
    pool = Pool(driver="gpu.nvidia.com", node="n" * 200, name="n" * 200)
    assert pool.index_of(pool.generate_name(17)[:58] + "x2x4x") == 17


def test_what_the_server_made_of_a_spec_counts_as_stored() -> None:
    shelf, accepted = Shelf(), Accepted()
    sent = comparable(shelf.publish(1).writes[0].spec)
    (body,) = shelf.bodies.values()
    body["spec"]["devices"][0]["attributes"] = {}
    assert shelf.plan(contents(1), accepted)
    accepted.note(sent, comparable(body["spec"]))
    assert not shelf.plan(contents(1), accepted)


values = st.lists(st.integers(0, 3), min_size=1, max_size=5)


@given(values, values)
def test_one_round_reaches_any_pool_from_any_other(before: list[int], after: list[int]) -> None:
    shelf = Shelf()
    shelf.publish(*before)
    shelf.publish(*after)
    expected = [device for content in contents(*after) for device in content.devices]
    found = shelf.seen()
    assert found is not None
    assert [device["name"] for device in found] == [device.name for device in expected]
    assert not shelf.plan(contents(*after))


@given(values, values, st.integers(0, 8))
def test_a_pool_that_looks_complete_is_never_a_mixture(
    before: list[int], after: list[int], done: int
) -> None:
    shelf = Shelf()
    shelf.publish(*before)
    old = shelf.seen()
    shelf.take(shelf.plan(contents(*after)), only=done)
    halfway = shelf.seen()
    shelf.publish(*after)
    assert halfway in (None, old, shelf.seen())
    assert not shelf.plan(contents(*after))


@given(values, st.sets(st.integers(0, 4)))
def test_whatever_is_wiped_comes_back_with_one_write_each(
    desired: list[int], wiped: set[int]
) -> None:
    shelf = Shelf()
    shelf.publish(*desired)
    gone = [name for index, name in enumerate(sorted(shelf.bodies)) if index in wiped]
    for name in gone:
        del shelf.bodies[name]
    assert summary(shelf.publish(*desired)) == (0, 0, len(gone))
