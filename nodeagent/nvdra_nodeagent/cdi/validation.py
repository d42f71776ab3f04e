"""The rules that CDI libraries check when they load a file.

A file that breaks one is ignored as a whole, and the container then fails with "unresolvable CDI
devices": better not to write it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nvdra_nodeagent.cdi.document import CdiSpec, ContainerEdits

_CLASS: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)
_DEVICE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?", re.ASCII)
_NODE_TYPES: Final = ("", "b", "c", "u", "p")
_HOOK_NAMES: Final = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)


def problems_of(spec: CdiSpec) -> list[str]:
    """What a CDI library would refuse this document for."""
    vendor, _, class_ = spec.kind.partition("/")
    found = [] if _CLASS.fullmatch(vendor) and _CLASS.fullmatch(class_) else [f"kind {spec.kind!r}"]
    found += _edit_problems(spec.container_edits, "containerEdits")
    if not spec.devices:
        found.append("no devices")
    seen: set[str] = set()
    for device in spec.devices:
        place = f"device {device.name!r}"
        if not _DEVICE.fullmatch(device.name):
            found.append(f"{place}: not a CDI device name")
        if device.name in seen:
            found.append(f"{place}: named twice")
        seen.add(device.name)
        if not device.container_edits:
            found.append(f"{place}: no edits")
        found += _edit_problems(device.container_edits, place)
    return found


def _edit_problems(edits: ContainerEdits, place: str) -> Iterator[str]:
    for variable in edits.env:
        if variable.find("=") < 1:
            yield f"{place}: env {variable!r} is not NAME=value"
    for node in edits.device_nodes:
        if not node.path or node.type not in _NODE_TYPES or set(node.permissions) - set("rwm"):
            yield f"{place}: device node {node.path!r}"
    for mount in edits.mounts:
        if not mount.host_path or not mount.container_path:
            yield f"{place}: mount {mount.host_path!r} at {mount.container_path!r}"
    for hook in edits.hooks:
        if hook.hook_name not in _HOOK_NAMES or not hook.path:
            yield f"{place}: hook {hook.hook_name!r} {hook.path!r}"
