"""What the control plane writes about a node whose kubelet has fallen silent, and about its return.

Nobody here waits for heartbeats: whoever switches a node off says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import NODES
from nvdra_sim.cluster.kubelet.pod_status import timestamp

if TYPE_CHECKING:
    from nvdra_kube.api import KubeApi

_TAINT: Final = "node.kubernetes.io/unreachable"
_SILENT: Final = {
    "status": "Unknown",
    "reason": "NodeStatusUnknown",
    "message": "Kubelet stopped posting node status.",
}


async def mark_unreachable(api: KubeApi, name: str) -> None:
    """Ready becomes Unknown, and the node gets the taints of unreachable ones."""
    node = await api.get(NODES, name)
    taints = [{"key": _TAINT, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    kept = [t for t in (node.get("spec") or {}).get("taints") or () if t["key"] != _TAINT]
    await api.patch(NODES, name, {"spec": {"taints": [*kept, *taints]}})
    conditions = [
        {**condition, **_SILENT, "lastTransitionTime": timestamp()}
        if condition["type"] == "Ready"
        else condition
        for condition in (node.get("status") or {}).get("conditions") or ()
    ]
    await api.patch(NODES, name, {"status": {"conditions": conditions}}, subresource="status")


async def mark_reachable(api: KubeApi, name: str) -> None:
    """Takes the taints off. That it is ready, its kubelet says, which also makes a lost node."""
    try:
        node = await api.get(NODES, name)
    except NotFound:
        return
    kept = [t for t in (node.get("spec") or {}).get("taints") or () if t["key"] != _TAINT]
    await api.patch(NODES, name, {"spec": {"taints": kept or None}})
