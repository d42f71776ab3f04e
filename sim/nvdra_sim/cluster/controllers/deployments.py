"""One ReplicaSet for each pod template that a Deployment ever had; the current one has the pods.

A change of the template scales the old set down and the new one up at once.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from nvdra_kube.errors import AlreadyExists, NotFound
from nvdra_sim.cluster.controllers.kinds import DEPLOYMENTS, REPLICA_SETS
from nvdra_sim.cluster.controllers.ownership import (
    controller_of,
    controller_reference,
    is_controlled_by,
    is_dying,
)
from nvdra_sim.cluster.controllers.workqueue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.informer import Change, Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers

_HASH_LABEL: Final = "pod-template-hash"


class Deployments:
    """Keyed by Deployment."""

    def __init__(self, api: KubeApi, informers: SharedInformers) -> None:
        self._api = api
        self.queue = WorkQueue("deployments", self.reconcile)
        informers.of(DEPLOYMENTS).subscribe(lambda change: self.queue.add(change.key))
        informers.of(REPLICA_SETS).subscribe(self._replica_set_changed)

    def _replica_set_changed(self, change: Change) -> None:
        owner = controller_of(change.object)
        if owner is not None and owner["kind"] == DEPLOYMENTS.kind:
            self.queue.add((change.key[0], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        try:
            deployment = await self._api.get(DEPLOYMENTS, name, namespace=namespace)
        except NotFound:
            return
        if is_dying(deployment):
            return
        found = (await self._api.list(REPLICA_SETS, namespace=namespace))["items"]
        mine = [body for body in found if is_controlled_by(body, deployment)]
        current = await self._current(deployment, mine)
        for replica_set in mine:
            if replica_set["metadata"]["name"] != current["metadata"]["name"]:
                await self._scale(replica_set, 0)
        await self._scale(current, int(deployment["spec"].get("replicas", 1)))
        await self._report(deployment, current, mine)

    async def _current(self, deployment: Body, mine: Sequence[Body]) -> Body:
        wanted = _replica_set(deployment)
        name = wanted["metadata"]["name"]
        for body in mine:
            if body["metadata"]["name"] == name:
                return body
        namespace = deployment["metadata"]["namespace"]
        try:
            return await self._api.create(REPLICA_SETS, wanted, namespace=namespace)
        except AlreadyExists:
            # That of a deleted Deployment of the same name: it goes, and then ours can come.
            raise NotFound(f"ReplicaSet {namespace}/{name} belongs to somebody else") from None

    async def _scale(self, replica_set: Body, replicas: int) -> None:
        if replica_set["spec"].get("replicas") != replicas:
            replica_set["spec"]["replicas"] = replicas
            await self._api.update(REPLICA_SETS, replica_set)

    async def _report(self, deployment: Body, current: Body, mine: Sequence[Body]) -> None:
        counts = current.get("status") or {}
        others = [b for b in mine if b["metadata"]["name"] != current["metadata"]["name"]]
        old = sum(int((body.get("status") or {}).get("replicas", 0)) for body in others)
        wanted, ready = int(deployment["spec"].get("replicas", 1)), counts.get("readyReplicas", 0)
        available = {"type": "Available", "status": "True" if ready >= wanted else "False"}
        status = {
            "observedGeneration": deployment["metadata"].get("generation", 0),
            "replicas": counts.get("replicas", 0) + old,
            "updatedReplicas": counts.get("replicas", 0),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
            "conditions": [available],
        }
        if deployment.get("status") != status:
            deployment["status"] = status
            await self._api.update(DEPLOYMENTS, deployment, subresource="status")


def _replica_set(deployment: Body) -> Body:
    template = deployment["spec"]["template"]
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
    metadata = template.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), _HASH_LABEL: digest}
    selector = deployment["spec"].get("selector") or {}
    match = {**(selector.get("matchLabels") or {}), _HASH_LABEL: digest}
    return {
        "apiVersion": REPLICA_SETS.api_version,
        "kind": REPLICA_SETS.kind,
        "metadata": {
            "name": f"{deployment['metadata']['name']}-{digest}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [controller_reference(deployment, DEPLOYMENTS)],
        },
        "spec": {
            "replicas": int(deployment["spec"].get("replicas", 1)),
            "selector": {**selector, "matchLabels": match},
            "template": {**template, "metadata": {**metadata, "labels": labels}},
        },
    }
