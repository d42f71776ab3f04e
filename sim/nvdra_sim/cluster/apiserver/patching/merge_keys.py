"""Which lists of the API are merged item by item, and by which fields of the items."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_sim.cluster.apiserver.catalog import ResourceType

Path: TypeAlias = tuple[str, ...]
ListKeys: TypeAlias = "Callable[[Path], tuple[str, ...] | None]"
"""Keys of the list at a path (list positions left out); () for a set, None for an atomic list."""

# By the name of the list; the names are unambiguous but for those in _EXCEPTIONS.
_BY_NAME: dict[str, tuple[str, ...]] = {
    "addresses": ("type",),
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "finalizers": (),
    "hostAliases": ("ip",),
    "hostIPs": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "podIPs": ("ip",),
    "reservedFor": ("uid",),
    "resourceClaimStatuses": ("name",),
    "resourceClaims": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
_PORTS = {"Service": ("port",)}
_APPLY_ONLY: dict[tuple[str, Path], tuple[str, ...]] = {
    ("ResourceClaim", ("status", "devices")): ("driver", "device", "pool", "shareID"),
}


def strategic_keys(kind: ResourceType) -> ListKeys:
    """For strategic merge patches of a built-in resource."""

    def keys(path: Path) -> tuple[str, ...] | None:
        if path[-1] == "ports":
            return _PORTS.get(kind.kind, ("containerPort",))
        return _BY_NAME.get(path[-1])

    return keys


def apply_keys(kind: ResourceType) -> ListKeys:
    """For server-side apply of a built-in resource, which knows some more lists."""
    strategic = strategic_keys(kind)

    def keys(path: Path) -> tuple[str, ...] | None:
        return _APPLY_ONLY.get((kind.kind, path)) or strategic(path)

    return keys
