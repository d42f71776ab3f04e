"""JSON lines over TCP without blocking: the simulated daemons' wire format."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Message = dict[str, Any]


class Wire:
    """One connection; `on_message` for every line, `on_end` once when the other side is gone."""

    def __init__(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        *,
        on_message: Callable[[Wire, Message], None],
        on_end: Callable[[Wire], None],
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._selector = selector
        self._on_message, self._on_end = on_message, on_end
        self._received = b""
        selector.register(connection, selectors.EVENT_READ, self._read)

    def send(self, message: Message) -> None:
        self.send_line(json.dumps(message))

    def send_line(self, line: str) -> None:
        """What does not fit into the socket's buffer ends the connection: nobody reads it."""
        try:
            self._connection.sendall(f"{line}\n".encode())
        except OSError:
            self.end()

    def close(self) -> None:
        """Without telling anybody."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._connection)
        self._connection.close()

    def end(self) -> None:
        self.close()
        self._on_end(self)

    def _read(self) -> None:
        try:
            data = self._connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        if isinstance(message, dict) and self._connection.fileno() >= 0:
            self._on_message(self, message)


def listen(address: str, port: int) -> socket.socket:
    """A listening socket.

    :raises OSError: the address is in use or not this machine's.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
