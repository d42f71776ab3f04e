"""CDI documents, read as strictly as container runtimes read them (CDI specification 1.1.0).

One unknown field, a version that is too low for what the file uses, or an empty edit makes a
runtime skip the whole file. The embedded kubelet does the same, and keeps the reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

KNOWN_VERSIONS = (
    "0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
)  # fmt: skip
HOOK_NAMES = frozenset(
    {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}
)
_VENDOR_OR_CLASS = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DEVICE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")


class CdiError(Exception):
    """A CDI document or a device id that a runtime would refuse."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class DeviceNode(_Strict, frozen=True):
    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class Mount(_Strict, frozen=True):
    host_path: str
    container_path: str
    type: str = ""
    options: list[str] = msgspec.field(default_factory=list)


class Hook(_Strict, frozen=True):
    hook_name: str
    path: str
    args: list[str] = msgspec.field(default_factory=list)
    env: list[str] = msgspec.field(default_factory=list)
    timeout: int | None = None


class NetDevice(_Strict, frozen=True):
    host_interface_name: str
    name: str


class ContainerEdits(_Strict, frozen=True, omit_defaults=True):
    """What is done to a container: the `containerEdits` of a document, or several merged."""

    env: list[str] = msgspec.field(default_factory=list)
    device_nodes: list[DeviceNode] = msgspec.field(default_factory=list)
    mounts: list[Mount] = msgspec.field(default_factory=list)
    hooks: list[Hook] = msgspec.field(default_factory=list)
    intel_rdt: dict[str, Any] | None = None
    additional_gids: list[int] = msgspec.field(default_factory=list, name="additionalGids")
    net_devices: list[NetDevice] = msgspec.field(default_factory=list)

    def is_empty(self) -> bool:
        return not (
            self.env or self.device_nodes or self.mounts or self.hooks
            or self.intel_rdt or self.additional_gids or self.net_devices
        )  # fmt: skip


class CdiDevice(_Strict, frozen=True):
    name: str
    container_edits: ContainerEdits
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class CdiDocument(_Strict, frozen=True):
    cdi_version: str
    kind: str
    devices: list[CdiDevice]
    container_edits: ContainerEdits = msgspec.field(default_factory=ContainerEdits)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


# Decoders are built on import: two threads that build one at once crash the process.
msgspec.json.Decoder(CdiDocument)


class _UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A YAML loader that refuses a key written twice, as the runtimes' loader does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise CdiError(f"line {key_node.start_mark.line + 1}: key {key!r} is written twice")
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def parse_document(text: str | bytes) -> CdiDocument:
    """Read one CDI file. Raises `CdiError` naming the field."""
    try:
        raw = yaml.load(text, Loader=_UniqueKeyLoader)
        document = msgspec.convert(raw, CdiDocument)
    except yaml.YAMLError as exc:
        raise CdiError(f"not YAML or JSON: {exc}") from exc
    except msgspec.ValidationError as exc:
        raise CdiError(str(exc)) from exc
    for problem in problems(document):
        raise CdiError(problem)
    return document


def problems(document: CdiDocument) -> Iterator[str]:
    """Every rule of the specification that a well-formed document breaks."""
    yield from _version_problems(document)
    vendor, _, class_name = document.kind.partition("/")
    if not (_VENDOR_OR_CLASS.fullmatch(vendor) and _VENDOR_OR_CLASS.fullmatch(class_name)):
        yield f"kind {document.kind!r} is not <vendor>/<class>"
    if not document.devices:
        yield "devices: at least one device is needed"
    yield from _edit_problems(document.container_edits, "containerEdits")
    names: set[str] = set()
    for index, device in enumerate(document.devices):
        where = f"devices[{index}]"
        if not _DEVICE_NAME.fullmatch(device.name):
            yield f"{where}.name {device.name!r} is not a device name"
        if device.name in names:
            yield f"{where}.name {device.name!r} is used twice"
        names.add(device.name)
        if device.container_edits.is_empty():
            yield f"{where}.containerEdits is empty"
        yield from _edit_problems(device.container_edits, f"{where}.containerEdits")


def required_version(document: CdiDocument) -> str:
    """The smallest version whose readers accept what the document uses."""
    edits = [document.container_edits, *(device.container_edits for device in document.devices)]
    if any(edit.net_devices for edit in edits):
        return "1.1.0"
    if any(edit.intel_rdt or edit.additional_gids for edit in edits):
        return "0.7.0"
    annotated = document.annotations or any(device.annotations for device in document.devices)
    if annotated or "." in document.kind.partition("/")[2]:
        return "0.6.0"
    host_paths = any(node.host_path for edit in edits for node in edit.device_nodes)
    if host_paths or any(device.name[:1].isdigit() for device in document.devices):
        return "0.5.0"
    if any(mount.type for edit in edits for mount in edit.mounts):
        return "0.4.0"
    return "0.3.0"


def _version_problems(document: CdiDocument) -> Iterator[str]:
    version = document.cdi_version
    if version not in KNOWN_VERSIONS:
        yield f"cdiVersion {version!r} is not known (newest is {KNOWN_VERSIONS[-1]})"
        return
    needed = required_version(document)
    # Readers treat 0.3.0 as the base: documents of 0.1.0 and 0.2.0 have the same fields.
    if needed != "0.3.0" and KNOWN_VERSIONS.index(version) < KNOWN_VERSIONS.index(needed):
        yield f"cdiVersion {version} is too low: what the file uses needs {needed}"


def _edit_problems(edits: ContainerEdits, where: str) -> Iterator[str]:
    for index, entry in enumerate(edits.env):
        if entry.find("=") < 1:
            yield f"{where}.env[{index}] {entry!r} is not NAME=value"
    for index, node in enumerate(edits.device_nodes):
        yield from _node_problems(node, f"{where}.deviceNodes[{index}]")
    for index, mount in enumerate(edits.mounts):
        if not mount.host_path or not mount.container_path:
            yield f"{where}.mounts[{index}]: hostPath and containerPath must not be empty"
    for index, hook in enumerate(edits.hooks):
        if hook.hook_name not in HOOK_NAMES:
            yield f"{where}.hooks[{index}].hookName {hook.hook_name!r} is not a hook"
        if not hook.path:
            yield f"{where}.hooks[{index}].path is empty"
    hosts = [device.host_interface_name for device in edits.net_devices]
    inside = [device.name for device in edits.net_devices]
    if len(set(hosts)) != len(hosts) or len(set(inside)) != len(inside):
        yield f"{where}.netDevices: names must be unique"


def _node_problems(node: DeviceNode, where: str) -> Iterator[str]:
    if not node.path:
        yield f"{where}.path is empty"
    if node.type not in ("", "b", "c", "u", "p"):
        yield f"{where}.type {node.type!r} is not one of b, c, u, p"
    if set(node.permissions) - set("rwm"):
        yield f"{where}.permissions {node.permissions!r} has letters other than r, w, m"
