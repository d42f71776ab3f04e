"""ResourceSlices as JSON, in each version of the API, and in one form for comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nvdra_kube.quantity import Quantity, QuantityError
from nvdra_nodeagent.slices.model import Version

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_nodeagent.slices.model import AttributeValue, SliceContent, SliceDevice, Taint

API_VERSIONS: Final = ("v1", "v1beta2", "v1beta1")
"""Served versions of resource.k8s.io that are spoken here, best first."""

# v1beta1 wraps a device's fields once more.
_WRAPPED: Final = "v1beta1"
_WRAPPER: Final = "basic"
_SINCE: Final = "timeAdded"
_AMOUNTS: Final = frozenset({"capacity", "counters"})


def slice_spec(
    content: SliceContent,
    *,
    version: str,
    driver: str,
    node: str,
    pool: str,
    generation: int,
    slice_count: int,
) -> Body:
    """The `spec` of a slice for one API version."""
    spec: Body = {
        "driver": driver,
        "nodeName": node,
        "pool": {"name": pool, "generation": generation, "resourceSliceCount": slice_count},
    }
    if content.devices:
        spec["devices"] = [device_body(device, version=version) for device in content.devices]
    return spec


def device_body(device: SliceDevice, *, version: str) -> Body:
    fields: Body = {}
    if device.attributes:
        fields["attributes"] = {
            name: _attribute(value) for name, value in sorted(device.attributes.items())
        }
    if device.capacity:
        fields["capacity"] = {
            name: {"value": str(amount)} for name, amount in sorted(device.capacity.items())
        }
    if device.taints:
        fields["taints"] = [_taint(taint) for taint in device.taints]
    wrapped = {_WRAPPER: fields} if version == _WRAPPED else fields
    return {"name": device.name, **wrapped}


def _taint(taint: Taint) -> Body:
    value = {"value": taint.value} if taint.value else {}
    return {"key": taint.key, **value, "effect": taint.effect}


def _attribute(value: AttributeValue) -> Body:
    match value:
        case Version(text):
            return {"version": text}
        case bool():
            return {"bool": value}
        case int():
            return {"int": value}
        case tuple():
            return {"ints": list(value)}
        case _:
            return {"string": value}


def comparable(spec: Body) -> Body:
    """What a spec means, whatever version it came in: the generation is left out, and since when
    taints are there.

    Empty fields are as good as absent ones, `1024Mi` as `1Gi`.
    """
    kept = dict(spec)
    kept["pool"] = {
        name: value for name, value in (spec.get("pool") or {}).items() if name != "generation"
    }
    kept["devices"] = [_unwrapped(device) for device in spec.get("devices") or []]
    cleaned: Body = _clean(kept)
    return cleaned


def _unwrapped(device: Body) -> Body:
    inner = device.get(_WRAPPER)
    fields = device if inner is None else {"name": device.get("name"), **inner}
    if not fields.get("taints"):
        return fields
    return {**fields, "taints": [_timeless(taint) for taint in fields["taints"]]}


def _timeless(taint: Body) -> Body:
    return {name: value for name, value in taint.items() if name != _SINCE}


def keep_taint_times(spec: Body, stored: Body) -> None:
    """Give taints that the stored spec has already the time that they have there.

    Servers stamp a taint without a time as new, and waits of tolerations would begin again.
    """
    since = {
        (device.get("name"), *sorted(_timeless(taint).items())): taint[_SINCE]
        for device in stored.get("devices") or []
        for taint in device.get(_WRAPPER, device).get("taints") or []
        if _SINCE in taint
    }
    for device in spec.get("devices", []) if since else []:
        for taint in device.get(_WRAPPER, device).get("taints", []):
            if known := since.get((device["name"], *sorted(taint.items()))):
                taint[_SINCE] = known


def _clean(tree: Any, *, parent: str = "") -> Any:
    if isinstance(tree, dict):
        fields = ((name, _clean(value, parent=name)) for name, value in tree.items())
        return {
            name: _amount(value) if parent in _AMOUNTS else value
            for name, value in fields
            if value is not None and value not in ({}, [])
        }
    if isinstance(tree, list):
        return [_clean(item) for item in tree]
    return tree


def _amount(entry: Any) -> Any:
    """A capacity or counter with its quantity as a number."""
    try:
        return {**entry, "value": Quantity.parse(entry["value"]).nanos}
    except (QuantityError, KeyError, TypeError):
        return entry


def missing_fields(sent: Any, stored: Any, *, path: str = "") -> list[str]:
    """JSON paths below `sent` that `stored` lacks or has otherwise; both in comparable form."""
    if isinstance(sent, dict) and isinstance(stored, dict):
        return [
            found
            for name, value in sent.items()
            for found in missing_fields(value, stored.get(name), path=_join(path, name))
        ]
    if isinstance(sent, list) and isinstance(stored, list) and len(sent) == len(stored):
        return [
            found
            for number, (one, other) in enumerate(zip(sent, stored, strict=True))
            for found in missing_fields(one, other, path=f"{path}[{_label(one, number)}]")
        ]
    return [] if sent == stored else [path]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _label(item: Any, number: int) -> str:
    return str(item.get("name", number)) if isinstance(item, dict) else str(number)
