"""A driver as the kubelet sees it: two Unix sockets, brought up and down in the right order."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

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

log = structlog.get_logger(__name__)

DRAIN_S = 15.0
"""Half of the time that a pod has to end in; nothing is tried again then, so calls end soon."""


class KubeletPlugin:
    """Serves one driver to the kubelet; an async context manager.

    The DRA socket answers before the registration socket appears. On exit the registration socket
    goes first, so that the kubelet turns to another instance, then the DRA socket, and then calls
    in flight finish. Entering raises `Permanent` when a socket cannot be had.
    """

    def __init__(
        self,
        *,
        driver: str,
        claims: ClaimService,
        plugin_dir: Path,
        registrar_dir: Path,
        drain_s: float = DRAIN_S,
    ) -> None:
        self.endpoint = plugin_dir / "dra.sock"
        self.registration_socket = registrar_dir / f"{driver}-reg.sock"
        self.registration = Registration(driver=driver, endpoint=self.endpoint)
        self._driver = driver
        self._claims = claims
        self._drain_s = drain_s
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            services: list[IServable] = [DraV1(self._claims), DraV1beta1(self._claims)]
            await _serve(stack, self.endpoint, services, drain_s=self._drain_s)
            await _serve(stack, self.registration_socket, [self.registration], drain_s=1.0)
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


async def _serve(
    stack: AsyncExitStack, path: Path, services: list[IServable], *, drain_s: float
) -> None:
    socket_file = SocketFile(path)
    listener = socket_file.bind()
    stack.callback(listener.close)
    server = Server(services)
    gate = DrainGate()
    gate.guard(server)
    await server.start(sock=listener)
    stack.push_async_callback(_close, server, gate, path, drain_s)
    socket_file.publish()
    stack.callback(socket_file.remove)


async def _close(server: Server, gate: DrainGate, path: Path, drain_s: float) -> None:
    if not await gate.drain(timeout_s=drain_s):
        log.warning("calls were still running at shutdown", socket=str(path), gate=repr(gate))
    server.close()
