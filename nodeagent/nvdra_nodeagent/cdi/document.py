"""The CDI document: as much of the specification as the agent writes.

Fields and versions are those of the Container Device Interface specification 1.1. Runtimes skip a
file of a version that they do not know, so a document gets the smallest version that fits.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

Edit = TypeVar("Edit")

_DOCUMENT_START: Final = b"---\n"


class _Part(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A part of a CDI document; absent fields are not written."""


class DeviceNodeEdit(_Part, frozen=True):
    """A device node in the container. With type and numbers the runtime looks at no host node."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class MountEdit(_Part, frozen=True):
    """A bind mount from the host."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


class HookEdit(_Part, frozen=True):
    """A program that the runtime starts on the host; `args` begins with the program's name."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()


class ContainerEdits(_Part, frozen=True):
    """What changes in a container."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNodeEdit, ...] = ()
    mounts: tuple[MountEdit, ...] = ()
    hooks: tuple[HookEdit, ...] = ()
    additional_gids: tuple[int, ...] = msgspec.field(default=(), name="additionalGids")

    def __bool__(self) -> bool:
        return any((self.env, self.device_nodes, self.mounts, self.hooks, self.additional_gids))

    def __add__(self, other: ContainerEdits) -> ContainerEdits:
        """Both, each edit once, in order."""
        return ContainerEdits(
            env=_union(self.env, other.env),
            device_nodes=_union(self.device_nodes, other.device_nodes),
            mounts=_union(self.mounts, other.mounts),
            hooks=_union(self.hooks, other.hooks),
            additional_gids=_union(self.additional_gids, other.additional_gids),
        )


NO_EDITS: Final = ContainerEdits()


class DeviceEntry(_Part, frozen=True):
    """A device that containers may be given."""

    name: str
    container_edits: ContainerEdits


class CdiSpec(_Part, frozen=True):
    """A CDI file: edits for every container that gets any of its devices, and the devices."""

    cdi_version: str
    kind: str
    container_edits: ContainerEdits = NO_EDITS
    devices: tuple[DeviceEntry, ...] = ()


# Decoders are built on import: two threads that build one at once crash the process.
_decode: Final = msgspec.json.Decoder(CdiSpec).decode


def smallest_version(common: ContainerEdits, devices: tuple[DeviceEntry, ...], kind: str) -> str:
    """The oldest CDI version that knows everything used (SPEC.md, "Released versions")."""
    edits = [common, *(device.container_edits for device in devices)]
    if any(edit.additional_gids for edit in edits):
        return "0.7.0"
    if "." in kind.partition("/")[2]:
        return "0.6.0"
    if any(node.host_path for edit in edits for node in edit.device_nodes):
        return "0.5.0"
    if any(device.name[:1].isdigit() for device in devices):
        return "0.5.0"
    if any(mount.type for edit in edits for mount in edit.mounts):
        return "0.4.0"
    return "0.3.0"


def encode_spec(spec: CdiSpec) -> bytes:
    """The file's content. JSON is YAML, and writing it needs no YAML library and little time."""
    return _DOCUMENT_START + msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n"


def decode_spec(content: bytes) -> CdiSpec:
    """Read what `encode_spec` wrote; other programs' fields are dropped.

    :raises ValueError: the content is something else, e.g. YAML of another program.
    """
    try:
        return _decode(content.removeprefix(_DOCUMENT_START))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _union(first: tuple[Edit, ...], second: tuple[Edit, ...]) -> tuple[Edit, ...]:
    if not second:
        return first
    return tuple(dict.fromkeys(first + second)) if first else second
