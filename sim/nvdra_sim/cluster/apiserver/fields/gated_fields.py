"""Fields that a server silently drops while their feature gate is off.

On update a field stays where the stored object uses it already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.gates import ServerProfile

_REQUESTS = "spec.devices.requests"
_DEVICES = "spec.devices"

_SLICE: Mapping[str, tuple[str, ...]] = {
    "DRADeviceTaints": (f"{_DEVICES}.taints",),
    "DRAPartitionableDevices": (
        "spec.sharedCounters",
        "spec.perDeviceNodeSelection",
        f"{_DEVICES}.consumesCounters",
        f"{_DEVICES}.nodeName",
        f"{_DEVICES}.nodeSelector",
        f"{_DEVICES}.allNodes",
    ),
    "DRADeviceBindingConditions": (
        f"{_DEVICES}.bindsToNode",
        f"{_DEVICES}.bindingConditions",
        f"{_DEVICES}.bindingFailureConditions",
    ),
    "DRAConsumableCapacity": (
        f"{_DEVICES}.allowMultipleAllocations",
        f"{_DEVICES}.capacity.*.requestPolicy",
    ),
    "DRAListTypeAttributes": (f"{_DEVICES}.attributes.*.ints|bools|strings|versions",),
    "DRANodeAllocatableResources": (f"{_DEVICES}.nodeAllocatableResourceMappings",),
}
_CLAIM: Mapping[str, tuple[str, ...]] = {
    "DRAAdminAccess": (f"{_REQUESTS}.exactly.adminAccess",),
    "DRAPrioritizedList": (f"{_REQUESTS}.firstAvailable",),
    "DRADeviceTaints": (
        f"{_REQUESTS}.exactly.tolerations",
        f"{_REQUESTS}.firstAvailable.tolerations",
    ),
    "DRAConsumableCapacity": (
        f"{_REQUESTS}.exactly.capacity",
        f"{_REQUESTS}.firstAvailable.capacity",
        "spec.devices.constraints.distinctAttribute",
    ),
    "DRAResourceClaimDeviceStatus": ("status.devices",),
}


def drop_from_slice(body: Body, old: Body | None, profile: ServerProfile) -> None:
    _drop(body, old, profile, _SLICE)


def drop_from_claim(body: Body, old: Body | None, profile: ServerProfile) -> None:
    _drop(body, old, profile, _CLAIM)


def drop_from_template(body: Body, old: Body | None, profile: ServerProfile) -> None:
    inner = {
        gate: tuple(f"spec.{path}" for path in paths if path.startswith("spec."))
        for gate, paths in _CLAIM.items()
    }
    _drop(body, old, profile, inner)


def drop_from_class(body: Body, old: Body | None, profile: ServerProfile) -> None:
    _drop(body, old, profile, {"DRAExtendedResource": ("spec.extendedResourceName",)})


def _drop(
    body: Body, old: Body | None, profile: ServerProfile, fields: Mapping[str, tuple[str, ...]]
) -> None:
    for gate, paths in fields.items():
        if profile.enabled(gate):
            continue
        split = [path.split(".") for path in paths]
        found = [hit for path in split for hit in _owners(body, path)]
        if not found or (
            old is not None and any(True for path in split for _ in _owners(old, path))
        ):
            continue
        for owner, field in found:
            del owner[field]


def _owners(node: Any, path: list[str]) -> Iterator[tuple[Body, str]]:
    """The objects that carry the last field of a path, with its name.

    Paths lead through lists; `*` is any name, and the last part may be alternatives (`a|b`).
    """
    if isinstance(node, list):
        for item in node:
            yield from _owners(item, path)
    elif isinstance(node, dict):
        if len(path) == 1:
            yield from ((node, field) for field in path[0].split("|") if field in node)
        elif path[0] == "*":
            for value in node.values():
                yield from _owners(value, path[1:])
        elif path[0] in node:
            yield from _owners(node[path[0]], path[1:])
