"""What a DELETE does to an object: removal at once, a grace period, or waiting for finalizers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.metadata import timestamp

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """DeleteOptions: preconditions and the grace period (None: the object's own)."""

    uid: str = ""
    resource_version: str = ""
    grace_period_s: int | None = None


def plan_deletion(
    kind: ResourceType, old: Body, deletion: Deletion, *, now: datetime
) -> Body | None:
    """The object as it must be stored from now on, or None when it is to vanish."""
    grace_s = _grace_s(kind, old, deletion)
    meta = old["metadata"]
    held = bool(meta.get("finalizers")) or _namespace_is_held(kind, old)
    if not grace_s and not held:
        return None
    if "deletionTimestamp" in meta and grace_s >= meta.get("deletionGracePeriodSeconds", 0):
        return old
    body = {**old, "metadata": {**meta}}
    dying = body["metadata"]
    dying["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace_s))
    dying["deletionGracePeriodSeconds"] = grace_s
    if "generation" in meta and "deletionTimestamp" not in meta:
        dying["generation"] = meta["generation"] + 1
    if kind.key == ("", "namespaces"):
        body["status"] = {**(old.get("status") or {}), "phase": "Terminating"}
    return body


def _grace_s(kind: ResourceType, old: Body, deletion: Deletion) -> int:
    """Only pods on a node die slowly: their kubelet finishes the deletion with grace 0."""
    if kind.key != ("", "pods"):
        return 0
    spec, status = old.get("spec") or {}, old.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = deletion.grace_period_s
    if asked is None:
        asked = spec.get("terminationGracePeriodSeconds", 30)
    return max(0, int(asked))


def _namespace_is_held(kind: ResourceType, old: Body) -> bool:
    return kind.key == ("", "namespaces") and bool((old.get("spec") or {}).get("finalizers"))
