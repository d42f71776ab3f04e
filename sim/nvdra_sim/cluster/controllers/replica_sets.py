"""Keeps as many pods as a ReplicaSet wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_kube.errors import NotFound
from nvdra_sim.cluster.controllers.kinds import REPLICA_SETS
from nvdra_sim.cluster.controllers.owned_pods import OwnedPods, is_active, is_ready, wake_owner
from nvdra_sim.cluster.controllers.ownership import is_dying
from nvdra_sim.cluster.controllers.workqueue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.informer import Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers


class ReplicaSets:
    """Keyed by ReplicaSet."""

    def __init__(self, api: KubeApi, informers: SharedInformers) -> None:
        self._api = api
        self._pods = OwnedPods(api, REPLICA_SETS)
        self.queue = WorkQueue("replica sets", self.reconcile)
        informers.of(REPLICA_SETS).subscribe(lambda change: self.queue.add(change.key))
        wake_owner(informers, REPLICA_SETS, self.queue.add)

    async def reconcile(self, key: Key) -> None:
        try:
            replica_set = await self._api.get(REPLICA_SETS, key[1], namespace=key[0])
        except NotFound:
            return
        if is_dying(replica_set):
            return
        pods = [pod for pod in await self._pods.list(replica_set) if is_active(pod)]
        wanted = int(replica_set["spec"].get("replicas", 1))
        template = replica_set["spec"]["template"]
        pods += await self._pods.create_some(wanted - len(pods), replica_set, template)
        while len(pods) > wanted:
            await self._pods.delete(pods.pop(_dispensable(pods)))
        await self._report(replica_set, pods)

    async def _report(self, replica_set: Body, pods: Sequence[Body]) -> None:
        ready = sum(map(is_ready, pods))
        status = {
            "replicas": len(pods),
            "fullyLabeledReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "observedGeneration": replica_set["metadata"].get("generation", 0),
        }
        if replica_set.get("status") != status:
            replica_set["status"] = status
            await self._api.update(REPLICA_SETS, replica_set, subresource="status")


def _dispensable(pods: Sequence[Body]) -> int:
    """The youngest pod without a node, else that is not ready, else the youngest of all."""
    ranks = [(bool(pod["spec"].get("nodeName")), is_ready(pod), -i) for i, pod in enumerate(pods)]
    return ranks.index(min(ranks))
