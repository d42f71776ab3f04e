"""What the node agent tells the daemon: `settings.json` and `peers.json`, decoded strictly.

Values are plain named tuples here and everywhere in this room; dataclasses would cost 2 MiB on
every node.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from typing import TypeGuard

VERSION: Final = 1
MODE_DNS: Final = "dns"
MODE_IP: Final = "ip"
DEFAULT_SERVER_PORT: Final = 50000
DEFAULT_COMMAND_PORT: Final = 50005
DEFAULT_LOG_LEVEL: Final = 4
WAIT_FOREVER: Final = -1

_MOST_SLOTS: Final = 10_000  # names have four digits
_HEX: Final = frozenset("0123456789abcdef")


class BadInput(Exception):
    """A file of the node agent that cannot be used; the daemon waits for a better one."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}; it is read again when the node agent writes it")
        self.file = file
        self.problem = problem


class Settings(NamedTuple):
    """`settings.json`: whose daemon this is and how it has to run `nvidia-imex`.

    `boot_id` is the node's boot that the claim was prepared in. `num_nodes` counts only in IP mode;
    0 asks for none but the node itself. `grace_time_s` -1 waits for a lost peer for ever.
    """

    claim_uid: str
    boot_id: str
    domain: str
    clique: str
    node: str
    max_nodes: int
    mode: str
    suffix: str
    num_nodes: int
    grace_time_s: int = WAIT_FOREVER
    log_level: int = DEFAULT_LOG_LEVEL
    server_port: int = DEFAULT_SERVER_PORT
    command_port: int = DEFAULT_COMMAND_PORT


class Peer(NamedTuple):
    """One node of the clique, the daemon's own included; `slot` is its index there."""

    slot: int
    ip: str
    node: str


class Peers(NamedTuple):
    """`peers.json`, usable entries only, by index; `left_out` says what was not usable and why.

    `total` counts the entries of the whole domain, of which the clique may be a part.
    """

    generation: int
    own_index: int | None
    entries: tuple[Peer, ...]
    total: int
    left_out: tuple[str, ...] = ()

    def own(self) -> Peer | None:
        """The entry of this node."""
        return next((each for each in self.entries if each.slot == self.own_index), None)


def read_settings(data: bytes) -> Settings:
    """:raises BadInput: no JSON, another version, or a field that is missing or impossible."""
    fields = _Fields("settings.json", data)
    suffix = fields.text("suffix")
    if suffix and (len(suffix) > 32 or not _HEX.issuperset(suffix)):
        raise fields.bad(f"suffix {suffix!r} is not made of hexadecimal digits")
    mode = fields.text("mode")
    if mode not in (MODE_DNS, MODE_IP):
        raise fields.bad(f"mode {mode!r} is neither {MODE_DNS!r} nor {MODE_IP!r}")
    return Settings(
        claim_uid=fields.some_text("claimUID"),
        boot_id=fields.text("bootID"),
        domain=fields.some_text("domain"),
        clique=fields.text("clique"),
        node=fields.some_text("node"),
        max_nodes=fields.number("maxNodes", least=1, most=_MOST_SLOTS),
        mode=mode,
        suffix=suffix,
        num_nodes=fields.number("numNodes", default=0),
        grace_time_s=fields.number("graceTime", default=WAIT_FOREVER, least=WAIT_FOREVER),
        log_level=fields.number("logLevel", default=DEFAULT_LOG_LEVEL, most=4),
        server_port=fields.number("serverPort", default=DEFAULT_SERVER_PORT, least=1, most=65535),
        command_port=fields.number(
            "commandPort", default=DEFAULT_COMMAND_PORT, least=1, most=65535
        ),
    )


def read_peers(data: bytes, settings: Settings) -> Peers:
    """Entries that are impossible or contradict each other are left out, the others kept.

    :raises BadInput: no JSON, another version, or the own index is impossible.
    """
    fields = _Fields("peers.json", data)
    max_nodes = settings.max_nodes
    own = fields.values.get("ownIndex")
    if own is not None and (not _is_number(own) or not 0 <= own < max_nodes):
        raise fields.bad(f"ownIndex {own!r} is not between 0 and {max_nodes - 1}")
    listed = fields.values.get("peers")
    if not isinstance(listed, list):
        raise fields.bad("peers is missing or no list")
    left_out: list[str] = []
    entries = [
        peer for each in listed if (peer := _peer(each, max_nodes=max_nodes, left_out=left_out))
    ]
    kept = _without_contradictions(entries, own=(own, settings.node), left_out=left_out)
    return Peers(
        generation=fields.number("generation"),
        own_index=own,
        entries=tuple(sorted(kept)),
        total=fields.number("total", default=len(listed)),
        left_out=tuple(left_out),
    )


def usual_address(text: str) -> str:
    """An IPv4 or IPv6 address in its usual spelling, so that addresses can be compared; or ''."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, text))
        except (OSError, ValueError):
            continue
    return ""


class _Fields:
    """The members of a JSON object of a known version."""

    def __init__(self, file: str, data: bytes) -> None:
        self._file = file
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.bad(f"is no JSON: {error}") from error
        if not isinstance(values, dict):
            raise self.bad("is no JSON object")
        self.values: dict[str, object] = values
        if (version := values.get("version")) != VERSION:
            raise self.bad(f"has version {version!r}; this daemon reads version {VERSION}")

    def bad(self, problem: str) -> BadInput:
        return BadInput(self._file, problem)

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or not value.isprintable():
            raise self.bad(f"{name} is missing or no text")
        return value

    def some_text(self, name: str) -> str:
        if value := self.text(name):
            return value
        raise self.bad(f"{name} is empty")

    def number(
        self, name: str, *, default: int | None = None, least: int = 0, most: int = 1 << 62
    ) -> int:
        value = self.values.get(name, default)
        if not _is_number(value) or not least <= value < most + 1:
            raise self.bad(f"{name} is {value!r}, not a whole number from {least} on")
        return value


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _peer(entry: object, *, max_nodes: int, left_out: list[str]) -> Peer | None:
    if not isinstance(entry, dict):
        left_out.append(f"{entry!r} is no object")
        return None
    node, ip, index = entry.get("node"), entry.get("ip"), entry.get("index")
    if not isinstance(node, str) or not node:
        left_out.append(f"index {index!r} has no node")
    elif not _is_number(index) or not 0 <= index < max_nodes:
        left_out.append(f"{node}: index {index!r} is not between 0 and {max_nodes - 1}")
    elif not isinstance(ip, str) or not (address := usual_address(ip)):
        left_out.append(f"{node}: {ip!r} is no IP address")
    else:
        return Peer(index, address, node)
    return None


def _without_contradictions(
    entries: list[Peer], *, own: tuple[object, str], left_out: list[str]
) -> list[Peer]:
    """Two nodes at one index or one address: `nvidia-imex` would take one for the other.

    Nobody can tell here which of them is right; only the own entry is beyond doubt.
    """
    indices = Counter(peer.slot for peer in entries)
    addresses = Counter(peer.ip for peer in entries)
    kept = []
    for peer in entries:
        alone = indices[peer.slot] == 1 and addresses[peer.ip] == 1
        if alone or (peer.slot, peer.node) == own:
            kept.append(peer)
        else:
            left_out.append(f"{peer.node}: index {peer.slot} or {peer.ip} is also another node's")
    return kept
