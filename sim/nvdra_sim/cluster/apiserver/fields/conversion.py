"""Between the served versions of a resource and the one that is stored.

Only resource.k8s.io/v1beta1 has a shape of its own: the fields of a request stand beside its name
instead of under `exactly`, and those of a device under `basic`. v1beta2 and v1 look alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType

# What the two shapes of a request, and of a device, have in common.
_REQUEST_OWN = frozenset({"name", "firstAvailable"})
_DEVICE_OWN = frozenset({"name"})


def to_storage(kind: ResourceType, version: str, body: Body) -> Body:
    """An object as a client sent it, in the storage version; may share parts with `body`."""
    if version == kind.storage_version:
        return body
    return _converted(kind, version, body, kind.storage_version, _FROM_V1BETA1)


def from_storage(kind: ResourceType, version: str, body: Body) -> Body:
    """A stored object in a served version; may share parts with `body`."""
    if version == kind.storage_version:
        return body
    return _converted(kind, version, body, version, _TO_V1BETA1)


def _converted(
    kind: ResourceType,
    version: str,
    body: Body,
    target: str,
    conversions: Mapping[str, Callable[[Body], Body]],
) -> Body:
    if kind.group == "resource.k8s.io" and version == "v1beta1" and kind.kind in conversions:
        body = conversions[kind.kind](body)
    return {**body, "apiVersion": kind.api_version(target)}


def _nest_request(request: Body) -> Body:
    """A request of v1beta1 without alternatives is an exact one, even when it says nothing."""
    common = {name: value for name, value in request.items() if name in _REQUEST_OWN}
    flat = {name: value for name, value in request.items() if name not in _REQUEST_OWN}
    if flat or not request.get("firstAvailable"):
        common["exactly"] = flat
    return common


def _flatten_request(request: Body) -> Body:
    common = {name: value for name, value in request.items() if name in _REQUEST_OWN}
    return {**common, **(request.get("exactly") or {})}


def _flatten_device(device: Body) -> Body:
    common = {name: value for name, value in device.items() if name in _DEVICE_OWN}
    return {**common, **(device.get("basic") or {})}


def _nest_device(device: Body) -> Body:
    common = {name: value for name, value in device.items() if name in _DEVICE_OWN}
    basic = {name: value for name, value in device.items() if name not in _DEVICE_OWN}
    return {**common, "basic": basic}


def _each(path: tuple[str, ...], convert: Callable[[Body], Body]) -> Callable[[Body], Body]:
    """A function that converts the items of the list at `path`, leaving what it does not know."""

    def along(node: Any, names: tuple[str, ...]) -> Any:
        if not names:
            if not isinstance(node, list):
                return node
            return [convert(item) if isinstance(item, dict) else item for item in node]
        if not isinstance(node, dict) or names[0] not in node:
            return node
        return {**node, names[0]: along(node[names[0]], names[1:])}

    return lambda body: along(body, path)


_REQUESTS = ("spec", "devices", "requests")
_TEMPLATE_REQUESTS = ("spec", *_REQUESTS)
_DEVICES = ("spec", "devices")

_FROM_V1BETA1 = {
    "ResourceClaim": _each(_REQUESTS, _nest_request),
    "ResourceClaimTemplate": _each(_TEMPLATE_REQUESTS, _nest_request),
    "ResourceSlice": _each(_DEVICES, _flatten_device),
}
_TO_V1BETA1 = {
    "ResourceClaim": _each(_REQUESTS, _flatten_request),
    "ResourceClaimTemplate": _each(_TEMPLATE_REQUESTS, _flatten_request),
    "ResourceSlice": _each(_DEVICES, _nest_device),
}
