"""Who gets which index: never one twice, never another one while the node stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nvdra_api.names import ANNOTATION_RESERVATIONS
from nvdra_operator.cliques.members import Member
from nvdra_operator.cliques.slots import Reserved, Slot, read_slots, reserve, write_slots

NODES = st.sampled_from([f"node-{n:02}" for n in range(12)])
SLOTS = st.dictionaries(NODES, st.builds(Slot, st.integers(-2, 9), st.text("ab", max_size=2)))


def a_member(node: str, *, pod_uid: str = "") -> Member:
    return Member(
        node=node,
        pod=f"daemon-{node}",
        namespace="driver",
        pod_uid=pod_uid or f"uid-{node}",
        ip="",
        clique="c.1",
        ready=False,
    )


def reserved(
    slots: dict[str, Slot],
    *nodes: str,
    joined: set[str] | None = None,
    gone: set[str] | None = None,
    limit: int = 18,
) -> Reserved:
    return reserve(
        slots,
        [a_member(node) for node in nodes],
        joined=set(nodes) if joined is None else joined,
        gone=gone or set(),
        limit=limit,
    )


def indexes(result: Reserved) -> dict[str, int]:
    return {node: slot.index for node, slot in result.slots.items()}


def test_the_lowest_free_index_is_given() -> None:
    slots = {"a": Slot(0), "c": Slot(2)}
    assert indexes(reserved(slots, "a", "b", "c", "d")) == {"a": 0, "c": 2, "b": 1, "d": 3}


def test_a_node_keeps_its_index_while_its_daemon_is_replaced() -> None:
    assert indexes(reserved({"a": Slot(3, "old")}, joined={"a"})) == {"a": 3}
    assert reserved({"a": Slot(3, "old")}, "a").slots["a"] == Slot(3, "uid-a")


def test_a_node_that_left_keeps_its_index_until_its_daemon_is_surely_gone() -> None:
    slots = {"a": Slot(0, "uid-a")}
    before = reserved(slots, "b")
    assert indexes(before) == {"a": 0, "b": 1}
    assert before.suspects == ("a",)
    assert indexes(reserved(slots, "b", gone={"a"})) == {"b": 0}


def test_a_full_clique_has_no_place_for_one_more() -> None:
    result = reserved({}, "a", "b", "c", limit=2)
    assert indexes(result) == {"a": 0, "b": 1}
    assert result.overflow == ("c",)


def test_slots_that_a_person_broke_are_given_anew() -> None:
    slots = {"a": Slot(1), "b": Slot(1), "c": Slot(-4)}
    assert indexes(reserved(slots, "a", "b", "c")) == {"a": 1, "b": 0, "c": 2}


def test_slots_survive_being_written() -> None:
    slots = {"a": Slot(0, "u1"), "b": Slot(7, "u2")}
    body = {"metadata": {"annotations": {ANNOTATION_RESERVATIONS: write_slots(slots)}}}
    assert read_slots(body) == slots


def test_entries_count_as_slots_where_nothing_is_recorded() -> None:
    body = {"metadata": {}, "daemons": [{"nodeName": "a", "index": 4}, {"nodeName": "b"}]}
    assert read_slots(body) == {"a": Slot(4)}


def test_a_damaged_record_is_no_error() -> None:
    for text in ("{", "[]", '{"a": 1}', '{"a": {"index": "x"}}', '{"a": {"index": true}}'):
        body = {"metadata": {"annotations": {ANNOTATION_RESERVATIONS: text}}}
        assert read_slots(body) == {}


@given(slots=SLOTS, members=st.sets(NODES), joined=st.sets(NODES), gone=st.sets(NODES))
def test_no_index_is_ever_given_twice(
    slots: dict[str, Slot], members: set[str], joined: set[str], gone: set[str]
) -> None:
    result = reserved(slots, *sorted(members), joined=joined, gone=gone, limit=8)
    given_out = [slot.index for slot in result.slots.values()]
    assert len(given_out) == len(set(given_out))
    assert all(index >= 0 for index in given_out)
    assert members <= result.slots.keys() | set(result.overflow)
    new = result.slots.keys() - slots.keys()
    assert all(result.slots[node].index < 8 for node in new)


@given(steps=st.lists(st.tuples(st.sets(NODES), st.sets(NODES)), max_size=12))
def test_a_node_that_stays_keeps_its_index_whatever_the_others_do(
    steps: list[tuple[set[str], set[str]]],
) -> None:
    slots: dict[str, Slot] = {}
    for members, joined in steps:
        result = reserved(slots, *sorted(members), joined=joined | members, limit=6)
        for node in members | joined:
            if node in slots and node in result.slots:
                assert result.slots[node].index == slots[node].index
        assert slots.keys() <= result.slots.keys()
        slots = dict(result.slots)


@given(slots=SLOTS, members=st.sets(NODES))
def test_the_same_scene_gives_the_same_slots(slots: dict[str, Slot], members: set[str]) -> None:
    once = reserved(slots, *sorted(members))
    again = reserved(dict(once.slots), *sorted(members))
    assert again.slots == once.slots
