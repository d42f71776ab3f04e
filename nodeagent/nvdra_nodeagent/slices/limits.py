"""What the API server refuses about devices: one bad device must not cost the node its slice.

The numbers are those of the ResourceSlice validation, which has not loosened them since 1.32.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from nvdra_kube.semver import SemverError, parse_semver
from nvdra_nodeagent.inventory.model import Defect
from nvdra_nodeagent.slices.model import Version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nvdra_nodeagent.slices.model import AttributeValue, SliceDevice

MAX_DEVICES: Final = 64
"""Devices per slice. 128 would do for some, but no longer when one of them gets a taint."""

_MAX_LABEL: Final = 63
_MAX_FACTS: Final = 32
_MAX_VALUES: Final = 48
_MAX_TEXT_BYTES: Final = 64
_MAX_IDENTIFIER: Final = 32

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def fit(device: SliceDevice) -> tuple[SliceDevice | None, tuple[Defect, ...]]:
    """The device without the attributes that no server takes; None when it cannot be published."""
    bad = {
        name: fault
        for name, value in device.attributes.items()
        if (fault := _name_fault(name) or _value_fault(value))
    }
    defects = [Defect(device.name, name, fault) for name, fault in bad.items()]
    kept = {name: value for name, value in device.attributes.items() if name not in bad}
    trimmed = replace(device, attributes=kept)
    faults = list(_device_faults(trimmed))
    defects += [Defect(device.name, "", fault) for fault in faults]
    return (None if faults else trimmed), tuple(defects)


def _device_faults(device: SliceDevice) -> Iterator[str]:
    if len(device.name) > _MAX_LABEL or not _LABEL.fullmatch(device.name):
        yield f"the name is no DNS label of at most {_MAX_LABEL} characters"
    facts = len(device.attributes) + len(device.capacity)
    if facts > _MAX_FACTS:
        yield f"{facts} attributes and capacities; the API takes {_MAX_FACTS}"
    values = sum(
        len(value) if isinstance(value, tuple) else 1 for value in device.attributes.values()
    )
    if values > _MAX_VALUES:
        yield f"{values} attribute values; the API takes {_MAX_VALUES}"
    for name in device.capacity:
        if fault := _name_fault(name):
            yield f"capacity {name}: {fault}"


def _name_fault(name: str) -> str:
    domain, slash, identifier = name.rpartition("/")
    if slash and (len(domain) > _MAX_LABEL or not _SUBDOMAIN.fullmatch(domain)):
        return f"the domain {domain!r} is no DNS subdomain of at most {_MAX_LABEL} characters"
    if len(identifier) > _MAX_IDENTIFIER or not _IDENTIFIER.fullmatch(identifier):
        return f"{identifier!r} is no C identifier of at most {_MAX_IDENTIFIER} characters"
    return ""


def _value_fault(value: AttributeValue) -> str:
    if isinstance(value, tuple) and not value:
        return "a list attribute needs a value"
    if not isinstance(value, (str, Version)):
        return ""
    text = value.text if isinstance(value, Version) else value
    size = len(text.encode())
    if size > _MAX_TEXT_BYTES:
        return f"the value has {size} bytes; the API takes {_MAX_TEXT_BYTES}"
    return _version_fault(text) if isinstance(value, Version) else ""


def _version_fault(text: str) -> str:
    try:
        parse_semver(text)
    except SemverError as error:
        return str(error)
    return ""
