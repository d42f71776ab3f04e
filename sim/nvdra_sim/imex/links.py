"""The connections of a simulated `nvidia-imex` to the other nodes of its domain."""

from __future__ import annotations

import contextlib
import selectors
import socket
from typing import TYPE_CHECKING, Any

from nvdra_sim.imex.lines import Message, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER_CONNECTED = "NEVER_CONNECTED"
CONNECTED = "CONNECTED"
RECOVERING = "RECOVERING"
DISCONNECTED = "DISCONNECTED"
MAP_MISMATCH = "NODE_MAP_MISMATCH"
INVALID = "INVALID"
UNAVAILABLE = "UNAVAILABLE"

_RETRY_S = 0.5


class Link:
    """To one line of the nodes file, at the address that its name led to when it was resolved.

    A connection that got lost is tried again at that address: only `redirect` brings another one.
    """

    def __init__(
        self,
        line: int,
        address: str,
        *,
        port: int,
        greeting: Message,
        selector: selectors.BaseSelector,
        changed: Callable[[], None],
        grace_time_s: int,
    ) -> None:
        self.line, self.address = line, address
        self.status = NEVER_CONNECTED
        self.peer: dict[str, Any] = {}
        self._port = port
        self._greeting = {**greeting, "to": line}
        self._selector = selector
        self._changed = changed
        self._grace_time_s = grace_time_s
        self._connecting: socket.socket | None = None
        self._wire: Wire | None = None
        self._retry_at = 0.0
        self._lost_at: float | None = None

    def advance(self, now: float, *, allowed: bool) -> None:
        """Connect if it is time to; forget the peer when its grace time is over."""
        if not allowed:
            self._drop()
        if self._lost_at is None and self.status == RECOVERING:
            self._lost_at = now
        elif self.status == RECOVERING and 0 <= self._grace_time_s <= now - (self._lost_at or now):
            self._set(DISCONNECTED)
        idle = self._wire is None and self._connecting is None
        if allowed and idle and self.address and now >= self._retry_at:
            self._retry_at = now + _RETRY_S
            self._connect()

    def redirect(self, address: str) -> None:
        """Begin anew, at this address."""
        self.address = address
        self._retry_at = 0.0
        self._drop()

    def close(self) -> None:
        self._drop()

    def _connect(self) -> None:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        self._connecting = connection
        connection.connect_ex((self.address, self._port))
        self._selector.register(connection, selectors.EVENT_WRITE, self._connected)

    def _connected(self) -> None:
        connection = self._connecting
        assert connection is not None
        self._selector.unregister(connection)
        self._connecting = None
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            connection.close()
            return
        self._wire = Wire(connection, self._selector, on_message=self._heard, on_end=self._ended)
        self._wire.send(self._greeting)

    def _heard(self, _: Wire, message: Message) -> None:
        if refusal := message.get("refusal"):
            self._set(str(refusal))
        elif message.get("bye"):
            self.peer = {}
            self._set(DISCONNECTED)
        else:
            self.peer = message
            self._lost_at = None
            self._set(CONNECTED)

    def _ended(self, _: Wire) -> None:
        self._wire = None
        self.peer = {}
        if self.status == CONNECTED:
            self._set(RECOVERING)

    def _drop(self) -> None:
        if self._connecting is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._connecting)
            self._connecting.close()
            self._connecting = None
        if self._wire is not None:
            wire, self._wire = self._wire, None
            wire.close()
            self.peer = {}
            if self.status == CONNECTED:
                self._set(RECOVERING)

    def _set(self, status: str) -> None:
        if status != self.status:
            self.status = status
            self._changed()
