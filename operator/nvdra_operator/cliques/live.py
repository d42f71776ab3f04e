"""Asks the API itself whether a daemon is gone: local copies may be behind, and an index that is
given to another one too early breaks both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from nvdra_api.names import LABEL_COMPUTE_DOMAIN
from nvdra_kube.resources import PODS
from nvdra_operator.cliques.membership import sits

if TYPE_CHECKING:
    from collections.abc import Collection

    from nvdra_kube.api import Body, KubeApi
    from nvdra_operator.cliques.membership import Seat

# Pods of so many nodes are asked for node by node, those of more nodes all at once.
_ONE_BY_ONE: Final = 8


class LiveSeats:
    """`namespaces` are where daemons may be."""

    def __init__(self, api: KubeApi, namespaces: tuple[str, ...]) -> None:
        self._api = api
        self._namespaces = namespaces

    async def gone(self, uid: str, suspects: Collection[Seat]) -> set[Seat]:
        """Those seats of a domain on which there is no daemon's pod. Raises `ApiError`."""
        nodes = {node for _, node in suspects}
        asked = nodes if len(nodes) <= _ONE_BY_ONE else {""}
        found = await asyncio.gather(*(self._pods(uid, node) for node in asked))
        pods = [pod for some in found for pod in some]
        return {seat for seat in suspects if not any(sits(pod, seat) for pod in pods)}

    async def _pods(self, uid: str, node: str) -> list[Body]:
        """The domain's daemons on one node, or (empty) on all."""
        pods: list[Body] = []
        for namespace in self._namespaces:
            listed = await self._api.list(
                PODS,
                namespace=namespace,
                label_selector=f"{LABEL_COMPUTE_DOMAIN}={uid}",
                field_selector=f"spec.nodeName={node}" if node else "",
            )
            pods += listed["items"]
        return pods
