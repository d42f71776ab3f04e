"""One pod of a DaemonSet on each node that it selects."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from typing import TYPE_CHECKING, Final

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import NODES
from nvdra_sim.cluster.controllers.kinds import DAEMON_SETS
from nvdra_sim.cluster.controllers.owned_pods import (
    OwnedPods,
    is_active,
    is_ready,
    phase_of,
    wake_owner,
)
from nvdra_sim.cluster.controllers.ownership import is_dying
from nvdra_sim.cluster.controllers.workqueue import WorkQueue
from nvdra_sim.cluster.scheduler.nodes import name_of, selection_obstacle, untolerated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.informer import Change, Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers

_HASH_LABEL: Final = "controller-revision-hash"
# A daemon belongs on a node in whatever state it is.
_TOLERATIONS: Final = tuple(
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect}
    for key, effect in (
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    )
)


class DaemonSets:
    """Keyed by DaemonSet. A pod of an old template is deleted, then replaced."""

    def __init__(self, api: KubeApi, informers: SharedInformers) -> None:
        self._api = api
        self._pods = OwnedPods(api, DAEMON_SETS)
        self._nodes = informers.of(NODES)
        self._daemon_sets = informers.of(DAEMON_SETS)
        self.queue = WorkQueue("daemon sets", self.reconcile)
        self._daemon_sets.subscribe(lambda change: self.queue.add(change.key))
        self._nodes.subscribe(self._node_changed)
        wake_owner(informers, DAEMON_SETS, self.queue.add)

    def _node_changed(self, change: Change) -> None:
        old = change.old
        same = old is not None and change.type == "modified"
        if same and old is not None and _placing(old) == _placing(change.object):
            return
        for key in self._daemon_sets.items:
            self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        try:
            daemon_set = await self._api.get(DAEMON_SETS, key[1], namespace=key[0])
        except NotFound:
            return
        if is_dying(daemon_set):
            return
        template = _template(daemon_set)
        nodes = [n for n in self._nodes.items.values() if _belongs_on(template, n)]
        by_node = {_node_of(pod): pod for pod in await self._pods.list(daemon_set)}
        await self._thin_out(by_node, {name_of(node) for node in nodes}, _hash_of(template))
        for node in nodes:
            if name_of(node) not in by_node:
                pod = await self._pods.create(daemon_set, _pinned(template, name_of(node)))
                by_node[name_of(node)] = pod
        await self._report(daemon_set, by_node, nodes)

    async def _thin_out(self, by_node: Mapping[str, Body], wanted: set[str], digest: str) -> None:
        """Delete what is finished, out of date or out of place; the gap is filled next time."""
        for node, pod in by_node.items():
            current = pod["metadata"].get("labels", {}).get(_HASH_LABEL) == digest
            finished = phase_of(pod) in ("Succeeded", "Failed")
            if not is_dying(pod) and (finished or not current or node not in wanted):
                await self._pods.delete(pod)

    async def _report(
        self, daemon_set: Body, by_node: Mapping[str, Body], nodes: Sequence[Body]
    ) -> None:
        active = [pod for pod in by_node.values() if is_active(pod)]
        ready = sum(map(is_ready, active))
        status = {
            "desiredNumberScheduled": len(nodes),
            "currentNumberScheduled": len(active),
            "updatedNumberScheduled": len(active),
            "numberMisscheduled": 0,
            "numberReady": ready,
            "numberAvailable": ready,
            "numberUnavailable": max(0, len(nodes) - ready),
            "observedGeneration": daemon_set["metadata"].get("generation", 0),
        }
        if daemon_set.get("status") != status:
            daemon_set["status"] = status
            await self._api.update(DAEMON_SETS, daemon_set, subresource="status")


def _placing(node: Body) -> tuple[object, object]:
    return node["metadata"].get("labels"), (node.get("spec") or {}).get("taints")


def _template(daemon_set: Body) -> Body:
    template: Body = deepcopy(daemon_set["spec"]["template"])
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), _HASH_LABEL: digest}
    spec = template["spec"]
    spec["tolerations"] = [*(spec.get("tolerations") or []), *_TOLERATIONS]
    return template


def _hash_of(template: Body) -> str:
    return str(template["metadata"]["labels"][_HASH_LABEL])


def _belongs_on(template: Body, node: Body) -> bool:
    taints = (node.get("spec") or {}).get("taints") or []
    return not selection_obstacle(template, node) and not untolerated(
        taints, template["spec"]["tolerations"]
    )


def _pinned(template: Body, node: str) -> Body:
    """The template for one node: the scheduler binds it, nobody else gets it."""
    pinned = deepcopy(template)
    need = {"key": "metadata.name", "operator": "In", "values": [node]}
    affinity = pinned["spec"].setdefault("affinity", {})
    node_affinity = affinity.setdefault("nodeAffinity", {})
    node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {
        "nodeSelectorTerms": [{"matchFields": [need]}]
    }
    return pinned


def _node_of(pod: Body) -> str:
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return str(terms[0]["matchFields"][0]["values"][0])
