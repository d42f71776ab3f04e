"""Carrying out a decision: claims first, then the pod; every write is conditional."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Final

from nvdra_kube.resources import PODS, RESOURCE_CLAIMS
from nvdra_sim.cluster.scheduler.podclaims import is_reserved_for
from nvdra_sim.cluster.scheduler.usage import claim_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import Body, KubeApi
    from nvdra_sim.cluster.scheduler.decision import Bind

FINALIZER: Final = "resource.kubernetes.io/delete-protection"


class Binder:
    """Writes claims and bindings. Raises ApiError; a repeated call picks up where one stopped."""

    def __init__(self, api: KubeApi, *, wrote: Callable[[Body], None]) -> None:
        """`wrote` is told each claim as the server returned it."""
        self._api = api
        self._wrote = wrote

    async def bind(self, pod: Body, decision: Bind) -> None:
        for claim in decision.claims:
            await self._reserve(claim, pod, decision.allocations.get(claim_key(claim)))
        metadata = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
            "target": {"apiVersion": "v1", "kind": "Node", "name": decision.node},
        }
        await self._api.create(
            PODS,
            binding,
            namespace=metadata["namespace"],
            subresource="binding",
            name=metadata["name"],
        )

    async def _reserve(self, claim: Body, pod: Body, allocation: Body | None) -> None:
        """The finalizer before the allocation: no allocated claim may vanish."""
        claim = deepcopy(claim)
        finalizers = claim["metadata"].setdefault("finalizers", [])
        if allocation is not None and FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
            claim = await self._api.update(RESOURCE_CLAIMS, claim)
            self._wrote(claim)
        if allocation is None and is_reserved_for(claim, pod):
            return
        status = claim.setdefault("status", {})
        if allocation is not None:
            status["allocation"] = allocation
        if not is_reserved_for(claim, pod):
            status.setdefault("reservedFor", []).append(_consumer(pod))
        self._wrote(await self._api.update(RESOURCE_CLAIMS, claim, subresource="status"))

    async def release(self, claim: Body) -> None:
        """Take the devices of a claim back, so that it can be allocated elsewhere."""
        claim = {**claim, "status": {}}
        self._wrote(await self._api.update(RESOURCE_CLAIMS, claim, subresource="status"))


def _consumer(pod: Body) -> Body:
    metadata = pod["metadata"]
    return {"resource": "pods", "name": metadata["name"], "uid": metadata["uid"]}
