"""The journal: one file for each claim that this node prepared, and nothing that all depend on.

`claims/<uid>.json` holds a version, a checksum over version and record, and the record. A file that
does not hold together is moved alone to `quarantine/`, with its reason beside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import zlib
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from nvdra_nodeagent.cdi.names import is_claim_uid
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.record import Fence, Record
from nvdra_nodeagent.durable import (
    remove_durably,
    remove_with_temporaries,
    storage_error,
    write_durably,
)
from nvdra_nodeagent.errors import NodeFault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION: Final = 1
SUFFIX: Final = ".json"
_REASON_SUFFIX: Final = ".reason"

# What a damaged file may still tell; the patterns match nothing that a record does not contain.
_DEVICE_START: Final = b'{"request":'
_ADMIN: Final = b'"admin":true'
_SALVAGED_DEVICE: Final = re.compile(rb'"device":"([a-z0-9][a-z0-9-]{0,62})"')
_SALVAGED_GPU: Final = re.compile(rb'"gpu_uuid":"(GPU-[0-9A-Fa-f-]{1,64})"')
_SALVAGED_CLAIM: Final = re.compile(
    rb'"claim":{"namespace":"([a-z0-9-]{1,63})","name":"([a-z0-9.-]{1,253})"'
)

# Failures to read that say nothing about the file.
_OWN_TROUBLE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_LARGEST: Final = 4 * 1024 * 1024  # bytes; a record of 32 devices has 12 KiB

Stamp: TypeAlias = tuple[int, int, int]
"""Inode, time of change and size of a file: another stamp, other content. Inodes are re-used."""


class Damaged(Exception):
    """A file that is no record (any more). `newer`: it is whole, but of a later version."""

    def __init__(self, reason: str, *, data: bytes = b"", newer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.data = data
        self.newer = newer


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outer form never changes, so that every version can tell newer from damaged."""

    version: int
    checksum: str
    record: msgspec.Raw


_encoder: Final = msgspec.json.Encoder()
_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode
_decode_record: Final = msgspec.json.Decoder(Record).decode


def encode(record: Record, *, version: int = VERSION) -> bytes:
    body = _encoder.encode(record)
    return _encoder.encode(_Envelope(version, _checksum(version, body), msgspec.Raw(body)))


def decode(data: bytes, *, uid: str) -> Record:
    """:raises Damaged: `data` is not exactly what `encode` made for the claim `uid`."""
    try:
        envelope = _decode_envelope(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"no record: {error}", data=data) from error
    if envelope.checksum != _checksum(envelope.version, bytes(envelope.record)):
        raise Damaged("checksum does not match the content", data=data)
    if data != _encoder.encode(envelope):  # a changed byte that the checksum does not cover
        raise Damaged("not in the form in which records are written", data=data)
    if envelope.version > VERSION:
        reason = f"version {envelope.version}, this agent reads up to {VERSION}"
        raise Damaged(reason, data=data, newer=True)
    return _decode_body(envelope.record, uid=uid, data=data)


def _decode_body(body: msgspec.Raw, *, uid: str, data: bytes) -> Record:
    try:
        record = _decode_record(body)
    except msgspec.MsgspecError as error:
        # The checksum is right, so this was written on purpose: a kind of step we do not know.
        raise Damaged(f"cannot be understood: {error}", data=data, newer=True) from error
    if record.claim.uid != uid:
        raise Damaged(f"the record is of claim {record.claim.uid}", data=data)
    return record


def salvage(uid: str, damage: Damaged) -> Fence:
    """What a damaged file still says of its claim."""
    parts = damage.data.split(_DEVICE_START)
    held = b"".join(part for part in parts if _ADMIN not in part)
    free = b"".join(part for part in parts if _ADMIN in part)
    claim = _SALVAGED_CLAIM.search(damage.data)
    return Fence(
        uid=uid,
        reason=damage.reason,
        devices=_names(_SALVAGED_DEVICE, held),
        gpu_uuids=_names(_SALVAGED_GPU, held),
        claim=ClaimRef(claim[1].decode(), claim[2].decode(), uid) if claim else None,
        newer=damage.newer,
        free=_names(_SALVAGED_DEVICE, free),
    )


def _names(pattern: re.Pattern[bytes], data: bytes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found.decode() for found in pattern.findall(data)))


def _checksum(version: int, body: bytes) -> str:
    return f"{zlib.crc32(body, zlib.crc32(b'%d:' % version)):08x}"


class Journal:
    """The files below one state directory. Calls block; storage errors are `Retryable`."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "claims"
        self.quarantine_directory = state_dir / "quarantine"

    def entries(self) -> dict[str, Stamp]:
        """The UIDs that have a file, with its stamp."""
        return dict(_records_in(self.directory))

    def read(self, uid: str) -> Record | None:
        """None when there is no record. :raises Damaged: see there. :raises Retryable: not now."""
        path = self._path(uid)
        try:
            data = _read_plain(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _OWN_TROUBLE:
                raise storage_error("read", path, error) from error
            raise Damaged(f"cannot be read: {error.strerror or error}") from error
        return decode(data, uid=uid)

    def write(self, record: Record) -> Stamp:
        """Durable on return; answers what `entries` will say of it."""
        path = self._path(record.claim.uid)
        write_durably(path, encode(record), mode=0o600)
        return _stamp(path.stat())

    def remove(self, uid: str) -> None:
        """Durable on return, also when there was no record."""
        remove_with_temporaries(self._path(uid))

    def set_aside(self, uid: str, reason: str) -> None:
        """Move the claim's file to the quarantine; it stays a claim that is not unknown."""
        try:
            self.quarantine_directory.mkdir(parents=True, exist_ok=True)
            self._say_why(uid, reason)
            target = self._quarantined_path(uid)
            with contextlib.suppress(FileNotFoundError):  # the other agent was quicker
                self._path(uid).lstat()
                _make_room(target)
                self._path(uid).replace(target)
        except OSError as error:
            raise NodeFault(
                "StorageUnwritable",
                f"cannot move the damaged {self._path(uid)} to {self.quarantine_directory}: "
                f"{error.strerror or error}",
                hint="move the file away by hand",
            ) from error

    def fence_off(self, fence: Fence) -> None:
        """Durable on return: the claim may hold these devices, and has no record that says more.

        :raises Retryable: it could not be written.
        """
        with contextlib.suppress(OSError):  # writing the fence tells
            self.quarantine_directory.mkdir(parents=True, exist_ok=True)
        self._say_why(fence.uid, fence.reason)
        write_durably(self._quarantined_path(fence.uid), _fence_note(fence), mode=0o600)

    def quarantined(self) -> dict[str, Damaged]:
        """The files set aside, with what they still hold."""
        found: dict[str, Damaged] = {}
        if self.quarantine_directory.is_file():  # in its place: then nothing was ever set aside
            return found
        for uid, _ in _records_in(self.quarantine_directory):
            path = self._quarantined_path(uid)
            reason, data = "damaged earlier", b""
            with contextlib.suppress(OSError, UnicodeDecodeError):
                reason = _read_plain(path.with_suffix(_REASON_SUFFIX)).decode().strip() or reason
            with contextlib.suppress(OSError):
                data = _read_plain(path)
            found[uid] = Damaged(reason, data=data)
        return found

    def is_quarantined(self, uid: str) -> bool:
        return os.path.lexists(self._quarantined_path(uid))

    def settle(self, uid: str) -> None:
        """The claim's state is known again: what was set aside is of no more use."""
        target = self._quarantined_path(uid)
        with contextlib.suppress(OSError):  # the reason is for people only
            target.with_suffix(_REASON_SUFFIX).unlink()
        with contextlib.suppress(OSError):  # if it stays, removing the file tells why
            _make_room(target)
        remove_durably(target)

    def _say_why(self, uid: str, reason: str) -> None:
        """For people; that it cannot be written changes nothing."""
        path = self._quarantined_path(uid).with_suffix(_REASON_SUFFIX)
        with contextlib.suppress(OSError):
            path.write_text(f"{reason}\n", encoding="utf-8")

    def _quarantined_path(self, uid: str) -> Path:
        return self.quarantine_directory / self._path(uid).name

    def _path(self, uid: str) -> Path:
        if not is_claim_uid(uid):
            raise ValueError(f"not a claim UID: {uid!r}")
        return self.directory / f"{uid}{SUFFIX}"


def _fence_note(fence: Fence) -> bytes:
    """In the form in which `salvage` looks for things."""
    note: dict[str, object] = {}
    if fence.claim and fence.claim.name:
        note["claim"] = {"namespace": fence.claim.namespace, "name": fence.claim.name}
    note["gpus"] = [{"gpu_uuid": uuid} for uuid in fence.gpu_uuids]
    held = [{"request": "", "device": name} for name in fence.devices]
    note["devices"] = [*held, *({"request": "", "device": n, "admin": True} for n in fence.free)]
    return _encoder.encode(note)


def _read_plain(path: Path) -> bytes:
    """Nothing but an ordinary file of sensible size: a FIFO would block, a link leads elsewhere."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file")
        if status.st_size > _LARGEST:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes are too many for a record")
        return file.readall() or b""


def _make_room(target: Path) -> None:
    """A directory can neither be replaced by a file nor unlinked."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _records_in(directory: Path) -> Iterator[tuple[str, Stamp]]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                uid = entry.name.removesuffix(SUFFIX)
                if uid != entry.name and is_claim_uid(uid):  # other files are not ours to judge
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        yield uid, _stamp(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return
    except OSError as error:
        raise NodeFault(
            "StorageUnreadable",
            f"cannot list {directory}: {error.strerror or error}",
            hint="check the directory and the node's disk",
        ) from error
