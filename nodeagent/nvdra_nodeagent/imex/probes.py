"""Answers the kubelet's HTTP probes from the daemon's own loop: no exec, no interpreter start.

That a probe is answered at all shows that the loop turns; liveness also asks that it gets through.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.imex.logs import Log
    from nvdra_nodeagent.imex.reactor import Reactor
    from nvdra_nodeagent.imex.status import Verdict

INTERNAL_ERROR: Final = "InternalError"

_MOST_CONNECTIONS: Final = 32
_MOST_BYTES: Final = 8192
_PATIENCE_S: Final = 5.0
_REASONS: Final = {
    200: "OK",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


class Probes:
    """Listens on `address` (empty: everywhere) and `port`, as soon as it can.

    `verdict` says what is true now, `started` whether it ever was ready.
    """

    def __init__(
        self,
        address: str,
        port: int,
        *,
        reactor: Reactor,
        verdict: Callable[[], Verdict],
        started: Callable[[], bool],
        log: Log,
    ) -> None:
        self._address, self._port = address, port
        self._reactor, self._log = reactor, log
        self._verdict, self._started = verdict, started
        self._listener: socket.socket | None = None
        self._open: dict[socket.socket, tuple[float, bytearray]] = {}
        self._complaint = ""

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        return self._listener.getsockname()[1] if self._listener else 0

    def listen(self) -> None:
        """Begin to listen, if it does not yet. A failure is logged once and tried again later."""
        if self._listener is not None:
            return
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._address, self._port))
            listener.listen(_MOST_CONNECTIONS)
        except OSError as error:
            listener.close()
            if self._complaint != str(error):
                self._complaint = str(error)
                where = f"{self._address}:{self._port}"
                self._log.error("cannot listen for probes", address=where, cause=error)
            return
        listener.setblocking(False)
        self._listener = listener
        self._reactor.watch(listener, self._accept)
        self._log.info("listening for probes", address=f"{self._address}:{self.port}")

    def expire(self, now: float) -> None:
        """Drop those who connected and then said nothing."""
        for connection, (since, _) in list(self._open.items()):
            if now - since > _PATIENCE_S:
                self._close(connection)

    def close(self) -> None:
        for connection in list(self._open):
            self._close(connection)
        if self._listener is not None:
            self._reactor.forget(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(self._open) >= _MOST_CONNECTIONS:
                self._close(next(iter(self._open)))
            self._open[connection] = (self._reactor.now(), bytearray())
            self._reactor.watch(connection, lambda: self._read(connection))

    def _read(self, connection: socket.socket) -> None:
        _, received = self._open[connection]
        try:
            data = connection.recv(_MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        received += data
        if data and b"\r\n\r\n" not in received and len(received) < _MOST_BYTES:
            return
        if b"\n" in received:
            line = bytes(received.partition(b"\n")[0]).decode("latin-1").strip()
            with contextlib.suppress(OSError):
                connection.send(self._answer(line))  # small enough for any socket buffer
        self._close(connection)

    def _answer(self, request_line: str) -> bytes:
        status, text = answer(request_line, verdict=self._verdict(), started=self._started())
        body = f"{text}\n".encode()
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body

    def _close(self, connection: socket.socket) -> None:
        self._open.pop(connection, None)
        self._reactor.forget(connection)
        connection.close()


def answer(request_line: str, *, verdict: Verdict, started: bool) -> tuple[int, str]:
    """Status and body. `/startup` stays satisfied once the daemon was ready."""
    method, _, rest = request_line.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if path not in ("/startup", "/ready", "/live"):
        return 404, "there are /startup, /ready and /live"
    if method != "GET":
        return 405, "only GET"
    text = f"{verdict.reason}: {verdict.detail}" if verdict.detail else verdict.reason
    alive = path == "/live" and verdict.reason != INTERNAL_ERROR
    satisfied = verdict.ready or alive or (path == "/startup" and started)
    return (200 if satisfied else 503), text
