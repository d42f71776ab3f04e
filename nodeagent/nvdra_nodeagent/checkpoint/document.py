"""`checkpoint.json` as data: strict enough to be believed, one claim at a time.

    {"checksum": N, "v1": {...},
     "v2": {"checksum": N, "preparedClaims": {UID: claim}, "nodeBootID": "..."}}

Section v1 repeats the completed claims of v2 for readers that know no v2. The order of the fields
below is that of the file: the checksums are over its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from nvdra_nodeagent.checkpoint.checksum import checksum

COMPLETED: Final = "PrepareCompleted"
ABORTED: Final = "PrepareAborted"
"""It was undone, and is remembered to refuse a prepare that comes late."""


class KubeletDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What the kubelet was answered for a device. The names of the fields begin with capitals."""

    requests: tuple[str, ...] | None = msgspec.field(name="Requests", default=None)
    pool: str = msgspec.field(name="PoolName")
    name: str = msgspec.field(name="DeviceName")
    cdi_ids: tuple[str, ...] | None = msgspec.field(name="CDIDeviceIDs", default=None)
    share_id: str | UnsetType = msgspec.field(name="ShareID", default=UNSET)


class GpuInfo(msgspec.Struct, frozen=True):
    """A physical GPU."""

    uuid: str


class PreparedGpu(msgspec.Struct, frozen=True):
    """A whole GPU."""

    info: GpuInfo
    device: KubeletDevice


class MigInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A MIG device and its GPU."""

    parent_minor: int = msgspec.field(name="parentMinor")
    gi_id: int = msgspec.field(name="giId")
    ci_id: int = msgspec.field(name="ciId")
    uuid: str = msgspec.field(name="migUUID")
    parent_uuid: str = msgspec.field(name="parentUUID")
    parent_pci_bus_id: str | UnsetType = msgspec.field(name="parentPCIBusID", default=UNSET)


class PreparedMig(msgspec.Struct, frozen=True):
    """A MIG device."""

    concrete: MigInfo
    device: KubeletDevice


class PreparedVfio(msgspec.Struct, frozen=True):
    """A GPU that is bound to a VFIO driver."""

    info: GpuInfo
    device: KubeletDevice


Prepared: TypeAlias = PreparedGpu | PreparedMig | PreparedVfio


class PlaceInfo(msgspec.Struct, frozen=True):
    """The number in a device's name."""

    id: int


class PreparedChannel(msgspec.Struct, frozen=True):
    """An IMEX channel of a ComputeDomain."""

    info: PlaceInfo
    device: KubeletDevice

    @property
    def canonical_name(self) -> str:
        return f"channel-{self.info.id}"


class PreparedDaemon(msgspec.Struct, frozen=True):
    """The place of a ComputeDomain's daemon."""

    info: PlaceInfo
    device: KubeletDevice

    @property
    def canonical_name(self) -> str:
        return f"daemon-{self.info.id}"


PreparedPlace: TypeAlias = PreparedChannel | PreparedDaemon


class PreparedEntry(msgspec.Struct, frozen=True):
    """A device: exactly one of these is there, absent ones of the first two are written as null.

    The last two are in the checkpoint of ComputeDomains, which has none of the others, and both of
    these.
    """

    gpu: PreparedGpu | UnsetType | None = None
    mig: PreparedMig | UnsetType | None = None
    vfio: PreparedVfio | UnsetType | None = UNSET
    channel: PreparedChannel | UnsetType | None = UNSET
    daemon: PreparedDaemon | UnsetType | None = UNSET

    def device(self) -> Prepared | None:
        """The one that is there; None if there is none, or more than one."""
        there = [each for each in (self.gpu, self.mig, self.vfio) if each]
        return there[0] if len(there) == 1 else None

    def place(self) -> PreparedPlace | None:
        """As `device`, of the other kinds."""
        there = [each for each in (self.channel, self.daemon) if each]
        return there[0] if len(there) == 1 else None


class ConfigState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was set on the devices of a group; the last two are of ComputeDomains."""

    mps_daemon: str | UnsetType = msgspec.field(name="mpsControlDaemonID", default=UNSET)
    mps_applied: bool | UnsetType = msgspec.field(name="mpsApplied", default=UNSET)
    time_slice_applied: bool | UnsetType = msgspec.field(name="timeSliceApplied", default=UNSET)
    type: str | UnsetType = msgspec.field(name="Type", default=UNSET)
    domain: str | UnsetType = msgspec.field(name="ComputeDomain", default=UNSET)


class Group(msgspec.Struct, frozen=True):
    """Devices that share one config."""

    devices: tuple[PreparedEntry, ...] | None = None
    state: ConfigState = msgspec.field(name="configState", default_factory=ConfigState)


class ClaimEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of section v2. Section v1 has `status` and `groups` only, and completed claims."""

    state: str | UnsetType = msgspec.field(name="checkpointState", default=UNSET)
    status: Any = msgspec.field(default_factory=dict)
    groups: tuple[Group, ...] | UnsetType | None = msgspec.field(
        name="preparedDevices", default=UNSET
    )
    name: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    checksum: int | UnsetType = UNSET
    claims: dict[str, Raw] | UnsetType | None = msgspec.field(name="preparedClaims", default=UNSET)
    boot_id: str | UnsetType = msgspec.field(name="nodeBootID", default=UNSET)


class _File(msgspec.Struct, frozen=True, kw_only=True):
    checksum: int = 0
    v1: Raw | UnsetType = UNSET
    v2: Raw | UnsetType = UNSET


# Decoders are built on import: two threads that build one at once crash the process.
_decode_file: Final = msgspec.json.Decoder(_File).decode
_decode_section: Final = msgspec.json.Decoder(_Section).decode
_decode_claim: Final = msgspec.json.Decoder(ClaimEntry).decode
_decode_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The claims of a file. `sealed`: its checksums are right. `boot_id` is "" in old files.

    Aborted ones are left out, if the file is sealed: they hold nothing.

    `puzzles` are claims that are not in the form above, with the cause and their text.
    """

    claims: dict[str, ClaimEntry]
    puzzles: dict[str, tuple[str, bytes]]
    boot_id: str
    sealed: bool


def decode_checkpoint(data: bytes) -> Checkpoint:
    """:raises ValueError: no version of the format that is known."""
    try:
        compact = msgspec.json.format(data, indent=-1)
        file = _decode_file(compact)
        section = _section(file)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a checkpoint: {error}") from error
    claims, puzzles, sealed = {}, {}, _is_sealed(compact)
    for uid, raw in (section.claims or {}).items():
        try:
            claim = _claim(raw, completed=file.v2 is UNSET)
        except (msgspec.MsgspecError, ValueError) as error:
            puzzles[uid] = (f"not understood: {error}", bytes(raw))
        else:
            if claim.state != ABORTED or not sealed:
                claims[uid] = claim
    return Checkpoint(claims, puzzles, section.boot_id or "", sealed)


def encode_checkpoint(claims: dict[str, ClaimEntry], *, boot_id: str) -> bytes:
    """The file, with both checksums. All claims are completed ones."""
    v2 = _Section(checksum=0, claims=_raw(claims) or UNSET, boot_id=boot_id or UNSET)
    v2 = msgspec.structs.replace(v2, checksum=checksum(_encode(v2)))
    plain = {
        uid: msgspec.structs.replace(claim, state=UNSET, name=UNSET, namespace=UNSET)
        for uid, claim in claims.items()
    }
    v1 = Raw(_encode(_Section(claims=_raw(plain) or UNSET)))
    sealed = checksum(_encode(_File(checksum=0, v1=v1)))
    return _encode(_File(checksum=sealed, v1=v1, v2=Raw(_encode(v2))))


def _section(file: _File) -> _Section:
    """The newest of the known ones; a file without any is empty, unless it has unknown ones."""
    raw = file.v2 if isinstance(file.v2, Raw) else file.v1
    if not isinstance(raw, Raw):
        raise ValueError("not a checkpoint: it has neither section v1 nor v2")
    return _decode_section(raw)


def _claim(raw: Raw, *, completed: bool) -> ClaimEntry:
    claim = _decode_claim(raw)
    if completed:
        return msgspec.structs.replace(claim, state=COMPLETED)
    if claim.state not in ("PrepareStarted", COMPLETED, ABORTED):
        raise ValueError(f"its state is {claim.state!r}")
    return claim


def _is_sealed(compact: bytes) -> bool:
    """Over the bytes as they are, with fields that only later versions know."""
    file = _fields(compact)
    section = file.pop("v2", None)
    return _is_sum(file) and (section is None or _is_sum(_fields(section)))


def _fields(text: bytes | Raw) -> dict[str, Raw]:
    return _decode_fields(text)


def _is_sum(fields: dict[str, Raw]) -> bool:
    unsealed = msgspec.json.encode({**fields, "checksum": Raw(b"0")})
    return bytes(fields.get("checksum", b"")) == b"%d" % checksum(unsealed)


def _raw(claims: dict[str, ClaimEntry]) -> dict[str, Raw]:
    return {uid: Raw(_encode(claim)) for uid, claim in claims.items()}


def _encode(value: object) -> bytes:
    """As Go writes JSON: sorted maps, and what is special in HTML escaped."""
    text = msgspec.json.encode(value, order="deterministic")
    for special, escaped in _ESCAPED:
        text = text.replace(special, escaped)
    return text


_ESCAPED: Final = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)
