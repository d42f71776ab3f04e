"""What the daemon of a domain says of itself and of the whole domain: what it comes to. Pure.

The daemon shares its directory with the agent and is not trusted: whatever is in its files is text
at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNKNOWN: Final = "UNKNOWN"
STATES: Final = ("UP", "DEGRADED", "DOWN", UNKNOWN)
"""Of an IMEX domain, as one of its nodes sees it."""

_READY: Final = "READY"
_CONNECTED: Final = ("CONNECTED", "")
_MOST_NAMED: Final = 3
_LONGEST: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonWords:
    """`ready` and `domain` are what the daemon of a prepared claim wrote in this boot, empty where
    it has not; `stale`: what is there is of an earlier one. `peers` is what it was told."""

    ready: Mapping[str, Any]
    domain: Mapping[str, Any]
    peers: Mapping[str, Any]
    stale: bool = False

    @property
    def is_ready(self) -> bool:
        return self.ready.get("ready") is True

    @property
    def obstacle(self) -> str:
        """Why the daemon is not ready; "" when it is."""
        if self.is_ready:
            return ""
        if self.stale:
            return "an earlier daemon has reported, not the present one"
        if not self.ready:
            return "its daemon has not reported yet"
        said = f"{self.ready.get('reason') or 'its daemon is not ready'}"
        text = f"{said}: {self.ready.get('detail') or '-'}"
        lost = list(self._lost())
        more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
        named = f"; of its peers, {', '.join(lost[:_MOST_NAMED])}{more}" if lost else ""
        return _short(text) + named

    @property
    def domain_state(self) -> str:
        """One of `STATES`."""
        state = self.domain.get("state")
        return state if state in STATES else UNKNOWN

    def connected(self) -> tuple[int, int]:
        """How many nodes of the domain this one sees ready, and how many there are."""
        nodes = list(self._nodes())
        return sum(_is_well(node) for node in nodes), len(nodes)

    def _lost(self) -> Iterator[str]:
        """Other nodes that are not ready or not connected, in words."""
        listed = self.peers.get("peers")
        names = {
            peer.get("index"): peer.get("node")
            for peer in (listed if isinstance(listed, list) else ())
            if isinstance(peer, dict) and isinstance(peer.get("index"), int)
        }
        own = self.peers.get("ownIndex")
        for node in self._nodes():
            index = node.get("index")
            if index != own and not _is_well(node):
                name = names.get(index) or node.get("host") or f"index {index}"
                trouble = node.get("state") if node.get("state") != _READY else ""
                yield _short(f"{name} is {trouble or node.get('connection')}")

    def _nodes(self) -> Iterator[Mapping[str, Any]]:
        listed = self.domain.get("nodes")
        for node in listed if isinstance(listed, list) else ():
            if isinstance(node, dict) and isinstance(node.get("index"), int):
                yield node


def _is_well(node: Mapping[str, Any]) -> bool:
    return node.get("state") == _READY and node.get("connection", "") in _CONNECTED


def _short(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
