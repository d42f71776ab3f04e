"""Patches: JSON merge patch, JSON patch, strategic merge, and server-side apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.apiserver import refusals

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.front import Call


def apply_patch(call: Call, current: Body | None) -> Any:
    """The object that the patch makes of `current`, which stays as it is."""
    match call.patch_type:
        case "application/merge-patch+json":
            return merge(current, call.body)
    raise refusals.unsupported_media_type(call.patch_type, "application/merge-patch+json")


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
