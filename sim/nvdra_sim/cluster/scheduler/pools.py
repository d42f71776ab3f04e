"""ResourceSlices become pools: only the newest generation, whole or not, in the order of choice.

Pure; one call per scheduling round, then every node reads from the same pools.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nvdra_sim.cluster.scheduler.capacity import amount_of
from nvdra_sim.cluster.scheduler.nodes import name_of, selector_matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nvdra_kube.api import Body

_PLACEMENTS = ("nodeName", "nodeSelector", "allNodes")


class DeviceId(NamedTuple):
    """A device as allocation results name it."""

    driver: str
    pool: str
    device: str

    def __str__(self) -> str:
        return "/".join(self)


@dataclass(frozen=True, slots=True, eq=False)
class SliceDevice:
    """A device of a slice. `body` is its v1 object, `placement` says which nodes reach it."""

    id: DeviceId
    body: Body
    placement: Body

    def is_on(self, node: Body) -> bool:
        return placement_matches(self.placement, node)

    @property
    def is_shareable(self) -> bool:
        """Whether several claims may hold it at once (KEP-5075)."""
        return bool(self.body.get("allowMultipleAllocations"))

    def attribute(self, name: str) -> Body | None:
        """The value object of a fully qualified attribute, e.g. `{"string": "0000:00"}`.

        A name without domain belongs to the domain of the driver.
        """
        return self._qualified("attributes", name)

    def capacity(self, name: str) -> Body | None:
        """The capacity of a fully qualified name, e.g. `{"value": "80Gi"}`."""
        return self._qualified("capacity", name)

    def _qualified(self, field: str, name: str) -> Body | None:
        values: Mapping[str, Body] = self.body.get(field) or {}
        domain, _, short = name.rpartition("/")
        if name in values:
            return values[name]
        return values.get(short) if domain == self.id.driver else None


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """All slices of the highest generation of one (driver, pool name).

    `defect` says why the pool gives no devices at all; "" when it is in order.
    """

    driver: str
    name: str
    generation: int
    devices: tuple[SliceDevice, ...]
    placements: tuple[Body, ...]
    counter_sets: Mapping[str, Mapping[str, int]]
    defect: str

    def is_on(self, node: Body) -> bool:
        """Whether any part of the pool is meant for the node, with devices or without."""
        return any(placement_matches(placement, node) for placement in self.placements)

    def devices_on(self, node: Body) -> list[SliceDevice]:
        return [] if self.defect else [device for device in self.devices if device.is_on(node)]


def placement_matches(placement: Body, node: Body) -> bool:
    """Whether `{"nodeName"|"nodeSelector"|"allNodes": ...}` includes the node."""
    if placement.get("allNodes"):
        return True
    if placement.get("nodeName"):
        return bool(placement["nodeName"] == name_of(node))
    return selector_matches(placement.get("nodeSelector") or {}, node)


def gather_pools(slices: Iterable[Body]) -> list[Pool]:
    """Pools in the order in which devices are chosen: by driver, then by name.

    Pools with a device that has binding conditions come last, as their claims take longer.
    Completeness counts all slices of the generation, wherever they are placed.
    """
    members: defaultdict[tuple[str, str], list[Body]] = defaultdict(list)
    for body in slices:
        spec = body["spec"]
        members[spec["driver"], spec["pool"]["name"]].append(body)
    pools = [_pool(driver, name, group) for (driver, name), group in sorted(members.items())]
    return sorted(pools, key=_has_binding_conditions)


def _has_binding_conditions(pool: Pool) -> bool:
    return any(device.body.get("bindingConditions") for device in pool.devices)


def _pool(driver: str, name: str, slices: Sequence[Body]) -> Pool:
    newest = max(_generation(body) for body in slices)
    current = sorted(
        (body for body in slices if _generation(body) == newest),
        key=lambda body: str(body["metadata"]["name"]),
    )
    devices = tuple(device for body in current for device in _devices(driver, name, body))
    counter_sets = _counter_sets(current)
    return Pool(
        driver=driver,
        name=name,
        generation=newest,
        devices=devices,
        placements=tuple(_placements(current, devices)),
        counter_sets=counter_sets,
        defect=_incomplete(current) or _invalid(current, devices, counter_sets),
    )


def _generation(body: Body) -> int:
    return int(body["spec"]["pool"].get("generation") or 0)


def _devices(driver: str, pool: str, body: Body) -> Iterator[SliceDevice]:
    spec = body["spec"]
    for device in spec.get("devices") or []:
        source = device if spec.get("perDeviceNodeSelection") else spec
        yield SliceDevice(
            id=DeviceId(driver, pool, device["name"]),
            body=device,
            placement=_placement(source),
        )


def _placement(source: Body) -> Body:
    return {key: source[key] for key in _PLACEMENTS if source.get(key)}


def _placements(slices: Iterable[Body], devices: Iterable[SliceDevice]) -> Iterator[Body]:
    seen: list[Body] = []
    whole = (_placement(body["spec"]) for body in slices)
    single = (device.placement for device in devices)
    for placement in (*whole, *single):
        if placement and placement not in seen:
            seen.append(placement)
            yield placement


def _counter_sets(slices: Iterable[Body]) -> dict[str, dict[str, int]]:
    return {
        counter_set["name"]: {
            name: amount_of(counter["value"])
            for name, counter in (counter_set.get("counters") or {}).items()
        }
        for body in slices
        for counter_set in body["spec"].get("sharedCounters") or []
    }


def _incomplete(slices: Sequence[Body]) -> str:
    expected = max(int(body["spec"]["pool"].get("resourceSliceCount") or 0) for body in slices)
    if len(slices) == expected:
        return ""
    return f"incomplete: {len(slices)} of {expected} slices are published"


def _invalid(
    slices: Iterable[Body],
    devices: Sequence[SliceDevice],
    counter_sets: Mapping[str, Mapping[str, int]],
) -> str:
    if twice := _repeated(device.id.device for device in devices):
        return f"invalid: the device name {twice} appears more than once"
    set_names = (s["name"] for body in slices for s in body["spec"].get("sharedCounters") or [])
    if twice := _repeated(set_names):
        return f"invalid: the counter set {twice} appears more than once"
    for device in devices:
        for use in device.body.get("consumesCounters") or []:
            if problem := _unknown_counter(use, counter_sets):
                return f"invalid: device {device.id.device} consumes the unknown {problem}"
    return ""


def _unknown_counter(use: Body, counter_sets: Mapping[str, Mapping[str, int]]) -> str:
    known = counter_sets.get(use["counterSet"])
    if known is None:
        return f"counter set {use['counterSet']}"
    missing = [name for name in use.get("counters") or {} if name not in known]
    return f"counter {use['counterSet']}/{missing[0]}" if missing else ""


def _repeated(names: Iterable[str]) -> str:
    return next((name for name, times in Counter(names).items() if times > 1), "")
