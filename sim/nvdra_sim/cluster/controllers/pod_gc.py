"""Removes pods of nodes that are gone, whose kubelet can no longer do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import NODES, PODS
from nvdra_sim.cluster.controllers.ownership import uid_of
from nvdra_sim.cluster.controllers.workqueue import WorkQueue

if TYPE_CHECKING:
    from nvdra_kube.api import KubeApi
    from nvdra_kube.informer import Change, Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers


class PodGarbage:
    """Keyed by pod."""

    def __init__(self, api: KubeApi, informers: SharedInformers) -> None:
        self._api = api
        self._pods = informers.of(PODS)
        self.queue = WorkQueue("pods of vanished nodes", self.reconcile)
        informers.of(NODES).subscribe(self._node_changed)

    def _node_changed(self, change: Change) -> None:
        if change.type == "deleted":
            for key, pod in self._pods.items.items():
                if pod["spec"].get("nodeName") == change.key[1]:
                    self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        pod = self._pods.items.get(key)
        node = pod["spec"].get("nodeName") if pod else None
        if pod is None or not node or await self._exists(node):
            return
        try:
            await self._api.delete(
                PODS, key[1], namespace=key[0], uid=uid_of(pod), grace_period_s=0
            )
        except NotFound:
            return

    async def _exists(self, node: str) -> bool:
        try:
            await self._api.get(NODES, node)
        except NotFound:
            return False
        return True
