"""Builds all controllers on shared informers and runs them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nvdra_kube.events import EventRecorder
from nvdra_sim.cluster.controllers.claim_templates import ClaimTemplates
from nvdra_sim.cluster.controllers.daemon_sets import DaemonSets
from nvdra_sim.cluster.controllers.deployments import Deployments
from nvdra_sim.cluster.controllers.garbage_collector import GarbageCollector
from nvdra_sim.cluster.controllers.informers import SharedInformers
from nvdra_sim.cluster.controllers.jobs import Jobs
from nvdra_sim.cluster.controllers.namespaces import Namespaces
from nvdra_sim.cluster.controllers.pod_gc import PodGarbage
from nvdra_sim.cluster.controllers.replica_sets import ReplicaSets
from nvdra_sim.cluster.controllers.resource_claims import ResourceClaims

if TYPE_CHECKING:
    from nvdra_kube.api import KubeApi
    from nvdra_sim.cluster.controllers.workqueue import WorkQueue


class ControllerManager:
    """What kube-controller-manager is to a cluster. `run` belongs to a task of the owner."""

    def __init__(self, api: KubeApi) -> None:
        self._informers = SharedInformers(api)
        self._recorder = EventRecorder(api, component="controllers", instance="nvdra")
        controllers = (
            ClaimTemplates(api, self._informers, recorder=self._recorder),
            ResourceClaims(api, self._informers),
            Namespaces(api, self._informers),
            PodGarbage(api, self._informers),
            Deployments(api, self._informers),
            ReplicaSets(api, self._informers),
            DaemonSets(api, self._informers),
            Jobs(api, self._informers),
        )
        collector = GarbageCollector(api, self._informers)
        self._queues: list[WorkQueue] = [
            *(controller.queue for controller in controllers),
            *collector.queues,
        ]

    async def run(self) -> None:
        """Run all controllers until cancelled; none starts before all caches are filled."""
        async with self._recorder, asyncio.TaskGroup() as group:
            await self._informers.start(group)
            for queue in self._queues:
                group.create_task(queue.run(), name=f"controllers: {queue.name}")
