"""A driver as the kubelet sees it: two Unix sockets, brought up and down in the right order."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self

import structlog
from grpclib.server import Server

from nvdra_nodeagent.kubelet.dra import DraV1, DraV1beta1
from nvdra_nodeagent.kubelet.drain import DrainGate
from nvdra_nodeagent.kubelet.registration import Registration
from nvdra_nodeagent.kubelet.socket_file import SocketFile

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from grpclib._typing import IServable

    from nvdra_nodeagent.claims.model import ClaimService
    from nvdra_nodeagent.kubelet.names import SocketNames

log = structlog.get_logger(__name__)

DRAIN_S: Final = 15.0
"""A quarter of the time that a pod has to end in: nothing is tried again then, calls end soon."""
DRAIN_BESIDE_ANOTHER_S: Final = 43.0
"""Beside another instance, which new calls go to, a call may take its time: it is answered by
itself a little before the 45 s are over that the kubelet waits."""
DEREGISTRATION_S: Final = 2.0
"""The kubelet looks every second for registration sockets that went away."""
LAST_CALLS_S: Final = 1.0
"""For calls that a socket has taken when it is about to go."""


class KubeletPlugin:
    """Serves one driver to the kubelet; an async context manager.

    The DRA socket answers before the registration socket appears. On exit calls in flight finish
    first, because the kubelet hangs up on a driver whose registration socket is gone. Then that one
    goes, and the DRA socket answers until the kubelet has hung up. Entering raises `Permanent` when
    a socket cannot be had.
    """

    def __init__(
        self,
        *,
        driver: str,
        claims: ClaimService,
        sockets: SocketNames,
        drain_s: float = DRAIN_S,
        deregistration_s: float = DEREGISTRATION_S,
    ) -> None:
        """On exit calls in flight have `drain_s` to finish, and then the kubelet `deregistration_s`
        to hang up."""
        self.endpoint = sockets.service
        self.registration_socket = sockets.registration
        self.registration = Registration(driver=driver, endpoint=self.endpoint)
        self._driver = driver
        self._claims = claims
        self._drain_s = drain_s
        self._deregistration_s = deregistration_s
        self._gate = DrainGate()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        services: list[IServable] = [DraV1(self._claims), DraV1beta1(self._claims)]
        async with AsyncExitStack() as stack:
            server = await _serve(stack, self.endpoint, services, gate=self._gate)
            stack.push_async_callback(self._hung_up, server)
            await _serve(stack, self.registration_socket, [self.registration], gate=DrainGate())
            stack.push_async_callback(self._finish_calls)
            self._stack = stack.pop_all()
        log.info("serving the kubelet", driver=self._driver, endpoint=str(self.endpoint))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        log.info("no longer serving the kubelet", driver=self._driver)

    async def _finish_calls(self) -> None:
        if not await self._gate.wait_idle(timeout_s=self._drain_s):
            log.warning("calls were still running at shutdown", gate=repr(self._gate))

    async def _hung_up(self, server: Server) -> None:
        """Until nobody is connected any more; a kubelet that does not know us is not waited for."""
        if not self.registration.registered.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deregistration_s):
                # Connections end without an event that could be awaited, and grpclib shows them
                # nowhere else.
                while any(not each.closing for each in server._handlers):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


def longest_stop_s(drain_s: float) -> float:
    """How long leaving a `KubeletPlugin` takes at the most."""
    return drain_s + LAST_CALLS_S + DEREGISTRATION_S + LAST_CALLS_S


async def _serve(
    stack: AsyncExitStack, path: Path, services: list[IServable], *, gate: DrainGate
) -> Server:
    socket_file = SocketFile(path)
    listener = socket_file.bind()
    stack.callback(listener.close)
    server = Server(services)
    gate.guard(server)
    await server.start(sock=listener)
    stack.callback(server.close)
    stack.push_async_callback(gate.drain, timeout_s=LAST_CALLS_S)
    socket_file.publish()
    stack.callback(socket_file.remove)
    return server
