"""Draining a gRPC server: calls in flight finish, later ones are told to go elsewhere.

grpclib's own `close()` cancels running handlers and its `wait_closed()` can wait for ever, so the
gate counts calls itself and the owner closes the server once it is idle.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from grpclib.server import Server


class DrainGate:
    """Counts the calls of one server; once draining, new calls are answered UNAVAILABLE."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        state = "draining" if self._draining else "open"
        return f"<DrainGate {state}, {self._in_flight} in flight>"

    def guard(self, server: Server) -> None:
        """Count every call that `server` receives from now on."""
        listen(server, RecvRequest, self._on_request)

    async def wait_idle(self, *, timeout_s: float) -> bool:
        """Wait for a moment without a call, taking new ones; False when there was none in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._in_flight:
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def drain(self, *, timeout_s: float) -> bool:
        """Refuse new calls and wait for the running ones; False when some did not end in time."""
        self._draining = True
        return await self.wait_idle(timeout_s=timeout_s)

    async def _on_request(self, event: RecvRequest) -> None:
        if self._draining:
            raise GRPCError(Status.UNAVAILABLE, "the driver is shutting down; call again")
        call = event.method_func

        async def counted(stream: Any) -> None:
            self._in_flight += 1
            self._idle.clear()
            try:
                await call(stream)
            finally:
                self._in_flight -= 1
                if not self._in_flight:
                    self._idle.set()

        event.method_func = counted
