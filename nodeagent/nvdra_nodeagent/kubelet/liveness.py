"""The gRPC liveness service: SERVING only while the driver answers on its own sockets.

`grpc.health.v1.Health` on TCP, plain text, for services "" and "liveness". A check walks the way
the kubelet walks: GetInfo on the registration socket, a prepare without claims on the DRA socket.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.v1 import health_pb2 as messages
from grpclib.health.v1.health_grpc import HealthBase
from grpclib.server import Server

from nvdra_nodeagent.errors import Permanent
from nvdra_nodeagent.kubelet.proto import dra_v1_pb2, registration_pb2
from nvdra_nodeagent.kubelet.proto.dra_v1_grpc import DRAPluginStub
from nvdra_nodeagent.kubelet.proto.registration_grpc import RegistrationStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from grpclib.server import Stream

log = structlog.get_logger(__name__)

KNOWN_SERVICES = ("", "liveness")


class Liveness(HealthBase):
    """Checks both sockets of one driver; each check takes at most `timeout_s`."""

    def __init__(self, *, registration: Path, endpoint: Path, timeout_s: float = 5.0) -> None:
        self._registration = registration
        self._endpoint = endpoint
        self._timeout_s = timeout_s

    async def Check(
        self, stream: Stream[messages.HealthCheckRequest, messages.HealthCheckResponse]
    ) -> None:
        request = await stream.recv_message()
        service = request.service if request is not None else ""
        if service not in KNOWN_SERVICES:
            raise GRPCError(Status.NOT_FOUND, f"unknown service {service!r}")
        alive = await self.is_alive()
        serving = messages.HealthCheckResponse.ServingStatus
        status = serving.SERVING if alive else serving.NOT_SERVING
        await stream.send_message(messages.HealthCheckResponse(status=status))

    async def Watch(
        self, stream: Stream[messages.HealthCheckRequest, messages.HealthCheckResponse]
    ) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, "poll Check instead")

    @asynccontextmanager
    async def served(self, *, port: int) -> AsyncIterator[int]:
        """Listen on all addresses until the context ends; yields the port (0 picks one).

        Raises `Permanent` when the port cannot be had.
        """
        listener = _listen(port)
        chosen: int = listener.getsockname()[1]
        server = Server([self])
        await server.start(sock=listener)
        log.info("serving liveness", port=chosen)
        try:
            yield chosen
        finally:
            server.close()

    async def is_alive(self) -> bool:
        """Whether both sockets answered in time; the cause of a failure is logged."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await _get_info(self._registration)
                await _empty_prepare(self._endpoint)
        except (OSError, GRPCError, TimeoutError) as exc:
            log.warning("liveness check failed", cause=str(exc) or type(exc).__name__)
            return False
        return True


def _listen(port: int) -> socket.socket:
    """On IPv4 and IPv6 where the node has both: the kubelet dials the pod's address."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except (OSError, OverflowError) as exc:
        raise Permanent(
            "HealthPortUnusable",
            f"cannot serve liveness on port {port}: {exc}",
            hint="give --healthcheck-port a free port, 0 for any, or -1 to switch it off",
        ) from exc


async def _get_info(socket: Path) -> None:
    async with Channel(path=str(socket)) as channel:
        await RegistrationStub(channel).GetInfo(registration_pb2.InfoRequest())


async def _empty_prepare(socket: Path) -> None:
    async with Channel(path=str(socket)) as channel:
        stub = DRAPluginStub(channel)
        await stub.NodePrepareResources(dra_v1_pb2.NodePrepareResourcesRequest())
