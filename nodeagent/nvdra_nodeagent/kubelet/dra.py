"""The DRA service, v1 and v1beta1, as one implementation over `ClaimService`.

v1beta1 is v1 without `share_id`. A failing claim is a text in its own entry of the answer, never a
failed call: the kubelet would hold it against every other claim of the pod.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from nvdra_nodeagent.claims.model import ClaimRef, ClaimService, PreparedDevice
from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.kubelet.proto import dra_v1_pb2 as v1
from nvdra_nodeagent.kubelet.proto import dra_v1beta1_pb2 as v1beta1
from nvdra_nodeagent.kubelet.proto.dra_v1_grpc import DRAPluginBase as DraV1Base
from nvdra_nodeagent.kubelet.proto.dra_v1beta1_grpc import DRAPluginBase as DraV1beta1Base

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from grpclib.server import Stream

log = structlog.get_logger(__name__)


class _DraCalls:
    """Both calls of one API version; `messages` is the generated module of that version."""

    messages: ModuleType
    with_share_ids: bool

    def __init__(self, claims: ClaimService) -> None:
        self._claims = claims

    async def NodePrepareResources(self, stream: Stream[Any, Any]) -> None:
        refs = _claim_refs(await stream.recv_message())
        log.debug("prepare called", claims=[str(ref) for ref in refs])
        outcomes = await self._claims.prepare(refs)
        await stream.send_message(self._prepare_answer(refs, outcomes))

    async def NodeUnprepareResources(self, stream: Stream[Any, Any]) -> None:
        refs = _claim_refs(await stream.recv_message())
        log.debug("unprepare called", claims=[str(ref) for ref in refs])
        outcomes = await self._claims.unprepare(refs)
        answer = self.messages.NodeUnprepareResourcesResponse()
        for ref in refs:
            error = outcomes.get(ref.uid)
            answer.claims[ref.uid].error = str(error) if error else ""
        await stream.send_message(answer)

    def _prepare_answer(
        self,
        refs: Sequence[ClaimRef],
        outcomes: Mapping[str, tuple[PreparedDevice, ...] | AgentError],
    ) -> Any:
        answer = self.messages.NodePrepareResourcesResponse()
        for ref in refs:
            outcome = outcomes[ref.uid]
            entry = answer.claims[ref.uid]
            if isinstance(outcome, AgentError):
                entry.error = str(outcome)
            else:
                entry.devices.extend(self._device(device) for device in outcome)
        return answer

    def _device(self, device: PreparedDevice) -> Any:
        message = self.messages.Device(
            request_names=device.requests,
            pool_name=device.pool,
            device_name=device.device,
            cdi_device_ids=device.cdi_ids,
        )
        if self.with_share_ids and device.share_id is not None:
            message.share_id = device.share_id
        return message


class DraV1(_DraCalls, DraV1Base):
    """`k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin` (kubelet 1.34 and later)."""

    messages = v1
    with_share_ids = True


class DraV1beta1(_DraCalls, DraV1beta1Base):
    """`k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin` (kubelet 1.32 and later)."""

    messages = v1beta1
    with_share_ids = False


def _claim_refs(request: Any) -> list[ClaimRef]:
    """Each claim once, in the order asked; an empty list is a valid probe."""
    claims = request.claims if request is not None else ()
    unique = {
        claim.uid: ClaimRef(namespace=claim.namespace, name=claim.name, uid=claim.uid)
        for claim in claims
    }
    return list(unique.values())
