"""What the daemon makes of the node agent's files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.imex.inputs import BadInput, Settings, read_peers, read_settings
from nvdra_testing.imex import peers_document, settings_document, some_settings

TWO = {0: "10.0.0.1", 1: "10.0.0.2"}


def settings(**changes: Any) -> Settings:
    return read_settings(json.dumps(settings_document(**changes)).encode())


def peers(document: dict[str, Any]) -> Any:
    return read_peers(json.dumps(document).encode(), some_settings())


def test_settings_are_read_with_defaults_for_what_is_optional() -> None:
    found = settings()
    assert (found.mode, found.max_nodes, found.grace_time_s, found.log_level) == ("dns", 4, -1, 4)


def test_grace_time_and_log_level_can_be_chosen() -> None:
    found = settings(graceTime=60, logLevel=1)
    assert (found.grace_time_s, found.log_level) == (60, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version 2"),
        ({"claimUID": ""}, "claimUID"),
        ({"mode": "carrier pigeon"}, "mode"),
        ({"suffix": "../../etc"}, "suffix"),
        ({"maxNodes": 0}, "maxNodes"),
        ({"maxNodes": True}, "maxNodes"),
        ({"graceTime": -2}, "graceTime"),
        ({"serverPort": 70000}, "serverPort"),
        ({"node": "a\nb"}, "node"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        settings(**changes)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    for read in (read_settings, lambda each: read_peers(each, some_settings())):
        with pytest.raises(BadInput, match="JSON"):
            read(data)


def test_peers_come_by_index_with_the_own_one() -> None:
    document = peers_document(TWO, own=1)
    document["peers"].reverse()
    found = peers(document)
    assert [peer.slot for peer in found.entries] == [0, 1]
    assert found.own().ip == "10.0.0.2"


def test_addresses_are_compared_in_one_spelling() -> None:
    (peer,) = peers(peers_document({0: "FD00:0:0::0001"}, own=0)).entries
    assert peer.ip == "fd00::1"


def test_an_own_index_outside_of_the_clique_is_refused() -> None:
    with pytest.raises(BadInput, match="ownIndex 4"):
        peers(peers_document(TWO, own=4))


@pytest.mark.parametrize(
    "bad",
    [
        {"node": "node-9", "ip": "10.0.0.9", "index": 18},
        {"node": "node-9", "ip": "10.0.0.9", "index": "1"},
        {"node": "node-9", "ip": "nowhere", "index": 2},
        {"node": "node-9", "ip": "10.0.0.9\n10.0.0.1 x", "index": 2},
        {"node": "", "ip": "10.0.0.9", "index": 2},
        "node-9",
    ],
)
def test_an_impossible_peer_is_left_out_alone(bad: Any) -> None:
    document = peers_document(TWO, own=0)
    document["peers"].append(bad)
    found = peers(document)
    assert [peer.slot for peer in found.entries] == [0, 1]
    assert len(found.left_out) == 1


def test_nodes_that_share_an_index_are_both_left_out() -> None:
    document = peers_document({**TWO, 2: "10.0.0.3"}, own=0)
    document["peers"].append({"node": "node-8", "ip": "10.0.0.8", "index": 1})
    assert [peer.slot for peer in peers(document).entries] == [0, 2]


def test_the_own_entry_wins_against_a_node_with_its_recycled_address() -> None:
    document = peers_document({0: "10.0.0.1", 1: "10.0.0.1"}, own=0)
    found = peers(document)
    assert [peer.node for peer in found.entries] == ["node-0"]
    assert "node-1" in found.left_out[0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(settings_document())), json_values))
def test_any_settings_are_used_or_refused(changes: dict[str, Any]) -> None:
    try:
        found = settings(**changes)
    except BadInput:
        return
    assert found.max_nodes > 0


@given(st.lists(json_values | st.fixed_dictionaries({"node": json_values, "ip": json_values})))
def test_any_list_of_peers_is_used_or_refused(listed: list[Any]) -> None:
    found = peers(peers_document(TWO, own=None, peers=listed))
    assert len(found.entries) + len(found.left_out) == len(listed)
