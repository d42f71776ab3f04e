"""Rules for the devices of a ResourceSlice."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from nvdra_kube.semver import SemverError, parse_semver
from nvdra_sim.cluster.apiserver.checks.attribute_names import check_attribute_name
from nvdra_sim.cluster.apiserver.checks.findings import Findings, each, part
from nvdra_sim.cluster.apiserver.checks.placement import check_placement

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.gates import ServerProfile

_MAX_DEVICES = 128
_MAX_DEVICES_WITH_EXTRAS = 64
_MAX_ATTRIBUTES_AND_CAPACITIES = 32
_MAX_VALUES = 48
_MAX_TEXT = 64
_MAX_BINDING_CONDITIONS = 4
_MAX_VALID_VALUES = 10
_MAX_CONSUMED_SETS = 2
_MAX_CONSUMED_OLD = 32
_MAX_CONSUMED_OLD_IN_SLICE = 1024
MAX_COUNTERS = 32
_SCALARS = ("int", "bool", "string", "version")
_LISTS = ("ints", "bools", "strings", "versions")
_DEVICE_PLACES = ("nodeName", "nodeSelector", "allNodes")


def check_devices(spec: Body, profile: ServerProfile, findings: Findings) -> None:
    devices = list(each(spec, "devices", "spec"))
    findings.at_most("spec.devices", devices, _device_limit(spec, profile))
    findings.no_duplicates("spec.devices", [device.get("name") for _, device in devices])
    for path, device in devices:
        _check_device(device, path, spec, profile, findings)
    if profile.minor < (1, 35):
        total = sum(_consumed(device) for _, device in devices)
        if total > _MAX_CONSUMED_OLD_IN_SLICE:
            why = f"must not consume more than {_MAX_CONSUMED_OLD_IN_SLICE} counters in all"
            findings.invalid("spec.devices", total, why)


def _device_limit(spec: Body, profile: ServerProfile) -> int:
    """Devices that drag more with them are counted double on servers that know of it."""
    for _, device in each(spec, "devices", ""):
        if profile.minor >= (1, 35) and (device.get("taints") or device.get("consumesCounters")):
            return _MAX_DEVICES_WITH_EXTRAS
        attributes = part(device, "attributes").values()
        if any(field in value for value in attributes for field in _LISTS):
            return _MAX_DEVICES_WITH_EXTRAS
    return _MAX_DEVICES


def _check_device(
    device: Body, path: str, spec: Body, profile: ServerProfile, findings: Findings
) -> None:
    findings.label(f"{path}.name", device.get("name"))
    _check_attributes(device, path, findings)
    for name, capacity in part(device, "capacity").items():
        check_attribute_name(name, f"{path}.capacity", findings)
        _check_capacity(capacity, f"{path}.capacity[{name}]", device, findings)
    limit = 16 if profile.minor >= (1, 35) else 4
    findings.at_most(f"{path}.taints", device.get("taints"), limit)
    for here, taint in each(device, "taints", path):
        _check_taint(taint, here, profile, findings)
    _check_consumption(device, path, spec, profile, findings)
    _check_binding(device, path, findings)
    if spec.get("perDeviceNodeSelection"):
        check_placement(device, _DEVICE_PLACES, path, findings)
        return
    for place in _DEVICE_PLACES:
        if place in device:
            why = "may only be set when `perDeviceNodeSelection` is set to true in the slice"
            findings.invalid(f"{path}.{place}", device[place], why)


def _check_attributes(device: Body, path: str, findings: Findings) -> None:
    attributes, capacities = part(device, "attributes"), part(device, "capacity")
    count = len(attributes) + len(capacities)
    if count > _MAX_ATTRIBUTES_AND_CAPACITIES:
        why = (
            "the total number of attributes and capacities must not exceed"
            f" {_MAX_ATTRIBUTES_AND_CAPACITIES}"
        )
        findings.invalid(path, count, why)
    values = 0
    for name, value in attributes.items():
        here = f"{path}.attributes[{name}]"
        check_attribute_name(name, f"{path}.attributes", findings)
        given = [field for field in (*_SCALARS, *_LISTS) if field in value]
        if len(given) != 1:
            findings.invalid(here, ", ".join(given), "exactly one value must be specified")
        for field in given:
            items = value[field] if field in _LISTS else [value[field]]
            values += len(items)
            for item in items:
                _check_value(item, field.removesuffix("s"), f"{here}.{field}", findings)
    if values > _MAX_VALUES:
        findings.invalid(path, values, f"must not have more than {_MAX_VALUES} attribute values")


def _check_value(value: object, kind: str, path: str, findings: Findings) -> None:
    if not isinstance(value, str):
        return
    if findings.not_longer(path, value, _MAX_TEXT) and kind == "version":
        try:
            parse_semver(value)
        except SemverError:
            why = "must be a string compatible with semver.org spec 2.0.0"
            findings.invalid(path, value, why)


def _check_capacity(capacity: Body, path: str, device: Body, findings: Findings) -> None:
    findings.quantity(f"{path}.value", capacity.get("value"))
    policy = capacity.get("requestPolicy")
    if not isinstance(policy, dict):
        return
    here = f"{path}.requestPolicy"
    if not device.get("allowMultipleAllocations"):
        findings.forbidden(here, "allowed only for devices with `allowMultipleAllocations`")
    if "validValues" in policy and "validRange" in policy:
        findings.forbidden(here, "exactly one of `validValues`, `validRange`")
    if "default" in policy:
        findings.quantity(f"{here}.default", policy["default"])
    elif "validValues" in policy or "validRange" in policy:
        findings.required(f"{here}.default")
    findings.at_most(f"{here}.validValues", policy.get("validValues"), _MAX_VALID_VALUES)
    values = [findings.quantity(f"{here}.validValues", v) for v in policy.get("validValues") or ()]
    known = [value for value in values if value is not None]
    if any(not first < second for first, second in pairwise(known)):
        findings.invalid(f"{here}.validValues", len(known), "must be in ascending order")
    if "validRange" in policy and not part(policy, "validRange").get("min"):
        findings.required(f"{here}.validRange.min")


def _check_taint(taint: Body, path: str, profile: ServerProfile, findings: Findings) -> None:
    findings.qualified(f"{path}.key", taint.get("key"))
    if taint.get("value"):
        findings.label_value(f"{path}.value", taint["value"])
    effects = ("NoExecute", "NoSchedule") + (("None",) if profile.minor >= (1, 35) else ())
    if not taint.get("effect"):
        findings.required(f"{path}.effect")
    else:
        findings.supported(f"{path}.effect", taint["effect"], effects)


def _check_consumption(
    device: Body, path: str, spec: Body, profile: ServerProfile, findings: Findings
) -> None:
    consumed = list(each(device, "consumesCounters", path))
    names = [consumption.get("counterSet") for _, consumption in consumed]
    findings.no_duplicates(f"{path}.consumesCounters", names)
    separate = profile.minor >= (1, 35)
    if separate:
        findings.at_most(f"{path}.consumesCounters", consumed, _MAX_CONSUMED_SETS)
    elif _consumed(device) > _MAX_CONSUMED_OLD:
        why = f"must not consume more than {_MAX_CONSUMED_OLD} counters"
        findings.invalid(f"{path}.consumesCounters", _consumed(device), why)
    known = {
        found.get("name"): part(found, "counters") for _, found in each(spec, "sharedCounters", "")
    }
    for here, consumption in consumed:
        name = consumption.get("counterSet")
        findings.label(f"{here}.counterSet", name)
        check_counters(consumption, here, findings)
        if separate:
            continue
        if name not in known:
            findings.invalid(
                f"{here}.counterSet", name, "must reference a counterSet defined in the slice"
            )
        for counter in set(part(consumption, "counters")) - set(known.get(name, {})):
            why = "must reference a counter defined in the counterSet"
            findings.invalid(f"{here}.counters", counter, why)


def _check_binding(device: Body, path: str, findings: Findings) -> None:
    needed = device.get("bindingConditions") or []
    failing = device.get("bindingFailureConditions") or []
    for field, names in (("bindingConditions", needed), ("bindingFailureConditions", failing)):
        findings.at_most(f"{path}.{field}", names, _MAX_BINDING_CONDITIONS)
        for position, name in enumerate(names):
            findings.qualified(f"{path}.{field}[{position}]", name)
    if bool(needed) != bool(failing):
        missing = "bindingFailureConditions" if needed else "bindingConditions"
        findings.required(f"{path}.{missing}", "both lists of binding conditions or none")
    for name in sorted(set(needed) & set(failing)):
        why = "bindingFailureConditions must not overlap with bindingConditions"
        findings.invalid(f"{path}.bindingFailureConditions", name, why)


def _consumed(device: Body) -> int:
    return sum(
        len(part(consumption, "counters"))
        for _, consumption in each(device, "consumesCounters", "")
    )


def check_counters(owner: Body, path: str, findings: Findings) -> None:
    """The `counters` of a set, or of what a device consumes of it."""
    counters = part(owner, "counters")
    if not counters:
        findings.required(f"{path}.counters")
    findings.at_most(f"{path}.counters", counters, MAX_COUNTERS)
    for name, counter in counters.items():
        findings.label(f"{path}.counters", name)
        value = counter.get("value") if isinstance(counter, dict) else None
        findings.quantity(f"{path}.counters[{name}].value", value)
