"""The journal: one file for each claim that this node prepared, and nothing that all depend on.

`claims/<uid>.json` holds a version, a checksum over version and record, and the record. A file that
does not hold together is moved alone to `quarantine/`, with its reason beside it.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from nvdra_nodeagent.cdi.names import is_claim_uid
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.record import Fence, Record
from nvdra_nodeagent.claims.seal import (
    REASON_SUFFIX,
    SUFFIX,
    Damaged,
    Seal,
    read_plain,
    read_sealed,
    set_aside,
)
from nvdra_nodeagent.durable import (
    make_room,
    remove_durably,
    remove_with_temporaries,
    write_durably,
)
from nvdra_nodeagent.errors import NodeFault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION: Final = 1

# What a damaged file may still tell; the patterns match nothing that a record does not contain.
_DEVICE_START: Final = b'{"request":'
_ADMIN: Final = b'"admin":true'
_SALVAGED_DEVICE: Final = re.compile(rb'"device":"([a-z0-9][a-z0-9-]{0,62})"')
_SALVAGED_GPU: Final = re.compile(rb'"gpu_uuid":"(GPU-[0-9A-Fa-f-]{1,64})"')
_SALVAGED_CLAIM: Final = re.compile(
    rb'"claim":{"namespace":"([a-z0-9-]{1,63})","name":"([a-z0-9.-]{1,253})"'
)

Stamp: TypeAlias = tuple[int, int, int]
"""Inode, time of change and size of a file: another stamp, other content. Inodes are re-used."""


_seal: Final = Seal("record", version=VERSION)
_decode_record: Final = msgspec.json.Decoder(Record).decode


def encode(record: Record, *, version: int = VERSION) -> bytes:
    return _seal.close(record, version=version)


def decode(data: bytes, *, uid: str) -> Record:
    """:raises Damaged: `data` is not exactly what `encode` made for the claim `uid`."""
    record = _seal.open(data, _decode_record)
    if record.claim.uid != uid:
        raise Damaged(f"the record is of claim {record.claim.uid}", data=data)
    return record


def salvage(uid: str, damage: Damaged) -> Fence:
    """What a damaged file still says of its claim; nothing, if it is whole and of another one."""
    if _is_of_another(uid, damage.data):
        return Fence(uid=uid, reason=damage.reason)
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


def _is_of_another(uid: str, data: bytes) -> bool:
    with contextlib.suppress(Damaged):
        return _seal.open(data, _decode_record).claim.uid != uid
    return False


def _names(pattern: re.Pattern[bytes], data: bytes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found.decode() for found in pattern.findall(data)))


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
        data = read_sealed(self._path(uid))
        return None if data is None else decode(data, uid=uid)

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
        self._say_why(uid, reason)
        set_aside(self._path(uid), self._quarantined_path(uid))

    def fence_off(self, fence: Fence) -> None:
        """Durable on return: the claim may hold these devices, and has no record that says more.

        :raises Retryable: it could not be written.
        """
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
                reason = read_plain(path.with_suffix(REASON_SUFFIX)).decode().strip() or reason
            with contextlib.suppress(OSError):
                data = read_plain(path)
            found[uid] = Damaged(reason, data=data)
        return found

    def is_quarantined(self, uid: str) -> bool:
        return os.path.lexists(self._quarantined_path(uid))

    def settle(self, uid: str) -> None:
        """The claim's state is known again: what was set aside is of no more use."""
        target = self._quarantined_path(uid)
        with contextlib.suppress(OSError):  # the reason is for people only
            target.with_suffix(REASON_SUFFIX).unlink()
        with contextlib.suppress(OSError):  # if it stays, removing the file tells why
            make_room(target)
        remove_durably(target)

    def _say_why(self, uid: str, reason: str) -> None:
        """For people; that it cannot be written changes nothing."""
        path = self._quarantined_path(uid).with_suffix(REASON_SUFFIX)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
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
    return msgspec.json.encode(note)


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
