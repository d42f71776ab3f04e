"""The kubelet's side of a DRA driver: one connection, prepare and unprepare in v1 or v1beta1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from nvdra_nodeagent.claims.model import PreparedDevice
from nvdra_nodeagent.kubelet.proto import dra_v1_grpc, dra_v1_pb2, dra_v1beta1_grpc, dra_v1beta1_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_nodeagent.claims.model import ClaimRef

log = structlog.get_logger(__name__)

CALL_LIMIT_S = 45.0
"""The deadline that the kubelet gives to a prepare or unprepare call."""

_SERVICES: dict[str, tuple[Any, Any]] = {
    "v1.DRAPlugin": (dra_v1_pb2, dra_v1_grpc),
    "v1beta1.DRAPlugin": (dra_v1beta1_pb2, dra_v1beta1_grpc),
}
KNOWN_SERVICES = tuple(_SERVICES)


class DraCallError(Exception):
    """A call to a driver failed as a whole: no connection, time-out, or a gRPC status."""


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """What the driver says about one claim. A non-empty `error` is a failure."""

    devices: tuple[PreparedDevice, ...] = ()
    error: str = ""


class DraClient:
    """One registered plugin instance. `service` is one of `KNOWN_SERVICES`."""

    def __init__(
        self, *, driver: str, endpoint: str, service: str, call_limit_s: float = CALL_LIMIT_S
    ) -> None:
        self.driver = driver
        self.endpoint = endpoint
        self.service = service
        self._messages, stubs = _SERVICES[service]
        self._channel = Channel(path=endpoint)
        self._stub = stubs.DRAPluginStub(self._channel)
        self._call_limit_s = call_limit_s

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<DraClient {self.driver} {self.service} at {self.endpoint}, {state}>"

    @property
    def connected(self) -> bool:
        connected: bool = self._channel._connected
        return connected

    async def connect(self) -> bool:
        """Connect unless connected; whether there is a connection now."""
        try:
            await self._channel.__connect__()
        except OSError as exc:
            log.debug("driver not connected", driver=self.driver, cause=str(exc))
        return self.connected

    def close(self) -> None:
        self._channel.close()

    async def prepare(self, claims: Sequence[ClaimRef]) -> dict[str, PrepareResult]:
        """NodePrepareResources; results by claim UID as the driver sent them.

        Raises `DraCallError`.
        """
        response = await self._call("NodePrepareResources", claims)
        return {
            uid: PrepareResult(tuple(map(_device, result.devices)), result.error)
            for uid, result in response.claims.items()
        }

    async def unprepare(self, claims: Sequence[ClaimRef]) -> dict[str, str]:
        """NodeUnprepareResources; error texts (empty: done) by claim UID. Raises `DraCallError`."""
        response = await self._call("NodeUnprepareResources", claims)
        return {uid: result.error for uid, result in response.claims.items()}

    async def _call(self, method: str, claims: Sequence[ClaimRef]) -> Any:
        request = getattr(self._messages, f"{method}Request")(
            claims=[
                self._messages.Claim(namespace=claim.namespace, name=claim.name, uid=claim.uid)
                for claim in claims
            ]
        )
        try:
            return await getattr(self._stub, method)(request, timeout=self._call_limit_s)
        except GRPCError as exc:
            status = exc.status.name.replace("_", " ").title().replace(" ", "")
            raise DraCallError(f"rpc error: code = {status} desc = {exc.message}") from exc
        except TimeoutError as exc:
            text = f"no answer after {self._call_limit_s:g} s"
            raise DraCallError(f"rpc error: code = DeadlineExceeded desc = {text}") from exc
        except (OSError, StreamTerminatedError) as exc:
            text = f"connection to {self.endpoint}: {exc}"
            raise DraCallError(f"rpc error: code = Unavailable desc = {text}") from exc


def _device(device: Any) -> PreparedDevice:
    # Only v1 has share_id, and there its absence differs from an empty one.
    share = "share_id" in device.DESCRIPTOR.fields_by_name and device.HasField("share_id")
    return PreparedDevice(
        requests=tuple(device.request_names),
        pool=device.pool_name,
        device=device.device_name,
        cdi_ids=tuple(device.cdi_device_ids),
        share_id=device.share_id if share else None,
    )
