"""What the server fills into the objects of resource.k8s.io, and how it writes quantities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_kube.quantity import Quantity, QuantityError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nvdra_kube.api import Body


def default_claim(body: Body, now: str) -> None:
    _default_spec(_object(body, "spec"))


def default_template(body: Body, now: str) -> None:
    _default_spec(_object(_object(body, "spec"), "spec"))


def default_slice(body: Body, now: str) -> None:
    spec = _object(body, "spec")
    for device in _objects(spec, "devices"):
        for taint in _objects(device, "taints"):
            if not taint.get("timeAdded"):
                taint["timeAdded"] = now
        for capacity in _values(device, "capacity"):
            _canonical(capacity, "value")
            _canonical_policy(_object(capacity, "requestPolicy"))
        for consumption in _objects(device, "consumesCounters"):
            _canonical_values(consumption, "counters")
    for counter_set in _objects(spec, "sharedCounters"):
        _canonical_values(counter_set, "counters")


def _default_spec(spec: Body) -> None:
    for request in _objects(_object(spec, "devices"), "requests"):
        exactly = request.get("exactly")
        for part in (exactly, *_objects(request, "firstAvailable")):
            if isinstance(part, dict):
                _default_request(part)


def _default_request(request: Body) -> None:
    if not request.get("allocationMode"):
        request["allocationMode"] = "ExactCount"
    if request["allocationMode"] == "ExactCount" and not request.get("count"):
        request["count"] = 1
    for toleration in _objects(request, "tolerations"):
        if not toleration.get("operator"):
            toleration["operator"] = "Equal"
    capacity = _object(request, "capacity")
    requests = _object(capacity, "requests")
    for name in requests:
        _canonical(requests, name)


def _canonical_policy(policy: Body) -> None:
    _canonical(policy, "default")
    valid_range = _object(policy, "validRange")
    for name in ("min", "max", "step"):
        _canonical(valid_range, name)
    values = policy.get("validValues")
    if isinstance(values, list):
        policy["validValues"] = [_printed(value) for value in values]


def _canonical_values(owner: Body, field: str) -> None:
    for value in _values(owner, field):
        _canonical(value, "value")


def _canonical(owner: Body, field: str) -> None:
    """Print a quantity as the server stores it; what is none is left to validation."""
    if field in owner:
        owner[field] = _printed(owner[field])


def _printed(value: Any) -> Any:
    try:
        return str(Quantity.parse(value))
    except QuantityError:
        return value


def _object(owner: Body, field: str) -> Body:
    """The object at `field`; an empty stranger when there is none, so that reading goes on."""
    value = owner.get(field)
    return value if isinstance(value, dict) else {}


def _objects(owner: Body, field: str) -> Iterator[Body]:
    value = owner.get(field)
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _values(owner: Body, field: str) -> Iterator[Body]:
    yield from (value for value in _object(owner, field).values() if isinstance(value, dict))
