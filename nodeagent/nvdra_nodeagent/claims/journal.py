"""The journal: one file for each claim that this node prepared, and nothing that all depend on.

`claims/<uid>.json` holds a version, a checksum over version and record, and the record. A file that
does not hold together is moved alone to `quarantine/`, with its reason beside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
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
_SALVAGED_DEVICE: Final = re.compile(rb'"device":"([a-z0-9][a-z0-9-]{0,62})"')
_SALVAGED_GPU: Final = re.compile(rb'"gpu_uuid":"(GPU-[0-9A-Fa-f-]{1,64})"')
_SALVAGED_CLAIM: Final = re.compile(
    rb'"claim":{"namespace":"([a-z0-9-]{1,63})","name":"([a-z0-9.-]{1,253})"'
)

# Failures to read that say nothing about the file.
_OWN_TROUBLE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

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
    devices, gpus = _SALVAGED_DEVICE.findall(damage.data), _SALVAGED_GPU.findall(damage.data)
    claim = _SALVAGED_CLAIM.search(damage.data)
    return Fence(
        uid=uid,
        reason=damage.reason,
        devices=tuple(dict.fromkeys(name.decode() for name in devices)),
        gpu_uuids=tuple(dict.fromkeys(uuid.decode() for uuid in gpus)),
        claim=ClaimRef(claim[1].decode(), claim[2].decode(), uid) if claim else None,
        newer=damage.newer,
    )


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
            data = path.read_bytes()
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
            target = self.quarantine_directory / f"{uid}{SUFFIX}"
            with contextlib.suppress(FileNotFoundError):  # the other agent was quicker
                self._path(uid).replace(target)
            target.with_suffix(_REASON_SUFFIX).write_text(f"{reason}\n", encoding="utf-8")
        except OSError as error:
            raise NodeFault(
                "StorageUnwritable",
                f"cannot move the damaged {self._path(uid)} to {self.quarantine_directory}: "
                f"{error.strerror or error}",
                hint="move the file away by hand",
            ) from error

    def quarantined(self) -> dict[str, Damaged]:
        """The files set aside, with what they still hold."""
        found = {}
        for uid, _ in _records_in(self.quarantine_directory):
            path = self.quarantine_directory / f"{uid}{SUFFIX}"
            reason, data = "damaged earlier", b""
            with contextlib.suppress(OSError, UnicodeDecodeError):
                data = path.read_bytes()
                reason = path.with_suffix(_REASON_SUFFIX).read_text(encoding="utf-8").strip()
            found[uid] = Damaged(reason, data=data)
        return found

    def is_quarantined(self, uid: str) -> bool:
        return (self.quarantine_directory / f"{uid}{SUFFIX}").exists()

    def settle(self, uid: str) -> None:
        """The claim's state is known again: what was set aside is of no more use."""
        target = self.quarantine_directory / f"{uid}{SUFFIX}"
        with contextlib.suppress(OSError):  # the reason is for people only
            target.with_suffix(_REASON_SUFFIX).unlink()
        remove_durably(target)

    def _path(self, uid: str) -> Path:
        if not is_claim_uid(uid):
            raise ValueError(f"not a claim UID: {uid!r}")
        return self.directory / f"{uid}{SUFFIX}"


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
