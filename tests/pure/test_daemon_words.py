"""What comes of the files of a domain's daemon."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.computedomain.daemon_words import STATES, DaemonWords

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("index", "node", "host", "state", "connection", "ip"), JSON),
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("ready", "reason", "detail", "state", "ownIndex"), JSON),
        **{name: JSON | st.lists(ENTRY | JSON, max_size=3) for name in ("nodes", "peers")},
    },
)


def words(ready: Any = None, **nodes: tuple[str, str]) -> DaemonWords:
    """Nodes by name, in the order of their indices; the first is its own."""
    listed = [
        {"index": index, "host": "", "state": state, "connection": connection}
        for index, (state, connection) in enumerate(nodes.values())
    ]
    peers = [{"node": name, "index": index} for index, name in enumerate(nodes)]
    return DaemonWords(
        ready=ready or {},
        domain={"state": "UP", "nodes": listed},
        peers={"ownIndex": 0, "peers": peers},
    )


WELL = ("READY", "CONNECTED")
NOT_READY = {"ready": False, "reason": "ImexNotReady", "detail": "nvidia-imex is INITIALIZING"}


def test_a_ready_daemon_is_no_obstacle_whatever_its_peers_are() -> None:
    assert words({"ready": True}, a=WELL, b=("UNAVAILABLE", "")).obstacle == ""


def test_of_a_daemon_that_is_not_ready_reason_and_detail_are_told() -> None:
    assert words(NOT_READY, a=WELL).obstacle == "ImexNotReady: nvidia-imex is INITIALIZING"


def test_peers_are_named_with_what_ails_them() -> None:
    found = words(NOT_READY, a=WELL, b=("UNAVAILABLE", "INVALID"), c=("READY", "DISCONNECTED"))
    assert found.obstacle.endswith("; of its peers, b is UNAVAILABLE, c is DISCONNECTED")


def test_of_many_peers_the_first_are_named_and_the_others_counted() -> None:
    lost = {f"n{number}": ("UNAVAILABLE", "") for number in range(1, 18)}
    assert words(NOT_READY, n0=WELL, **lost).obstacle.endswith("n3 is UNAVAILABLE and 14 more")


def test_its_own_trouble_is_not_a_peers() -> None:
    assert "peers" not in words(NOT_READY, a=("INITIALIZING", ""), b=WELL).obstacle


def test_silence_and_words_of_another_daemon_are_told_apart() -> None:
    assert "not reported yet" in words().obstacle
    assert "earlier daemon" in DaemonWords(ready={}, domain={}, peers={}, stale=True).obstacle


def test_nodes_are_counted_by_how_well_they_are() -> None:
    assert words(a=WELL, b=("READY", ""), c=("READY", "RECOVERING")).connected() == (2, 3)


@given(DOCUMENT, DOCUMENT, DOCUMENT)
def test_whatever_a_daemon_writes_is_judged(ready: Any, domain: Any, peers: Any) -> None:
    found = DaemonWords(ready=ready, domain=domain, peers=peers)
    assert found.domain_state in STATES
    assert bool(found.obstacle) is not found.is_ready
    assert "\n" not in found.obstacle
    assert len(found.obstacle) < 2000
    well, count = found.connected()
    assert 0 <= well <= count
