"""State files that tell by themselves whether they are whole: version, checksum, content.

The outer form never changes, so that every version of the agent can tell newer from damaged.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from nvdra_nodeagent.durable import make_room, storage_error
from nvdra_nodeagent.errors import NodeFault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUFFIX: Final = ".json"
REASON_SUFFIX: Final = ".reason"
"""Of the text beside a file that was set aside."""

_LARGEST: Final = 4 * 1024 * 1024  # bytes; the record of a claim with 32 devices has 12 KiB
# Failures to read that say nothing about the file.
_OWN_TROUBLE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

T = TypeVar("T")


class Damaged(Exception):
    """A file that is not what was written (any more), with what it still holds. `newer`: it is
    whole, but of a later version."""

    def __init__(self, reason: str, *, data: bytes = b"", newer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.data = data
        self.newer = newer


_NOT_OURS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Seal:
    """Of one kind of files. `field` is what the content is called in them, `version` the newest
    version that can be read."""

    def __init__(self, field: str, *, version: int) -> None:
        self._field = field
        self._version = version
        envelope: Any = msgspec.defstruct(
            "Envelope",
            [("version", int), ("checksum", str), (field, msgspec.Raw)],
            frozen=True,
            forbid_unknown_fields=True,
        )
        self._envelope = envelope
        self._encode = msgspec.json.Encoder(order="deterministic").encode
        self._decode = msgspec.json.Decoder[Any](envelope).decode

    def close(self, content: msgspec.Struct, *, version: int) -> bytes:
        body = self._encode(content)
        return self._encode(self._envelope(version, _checksum(version, body), msgspec.Raw(body)))

    def open(self, data: bytes, decode: Callable[[msgspec.Raw], T]) -> T:
        """:raises Damaged: `data` is not exactly what `close` made."""
        try:
            envelope = self._decode(data)
        except _NOT_OURS as error:
            raise Damaged(f"not in the form of a state file: {error}", data=data) from error
        body: msgspec.Raw = getattr(envelope, self._field)
        if envelope.checksum != _checksum(envelope.version, bytes(body)):
            raise Damaged("checksum does not match the content", data=data)
        if data != self._encode(envelope):  # a changed byte that the checksum does not cover
            raise Damaged("not in the form in which it is written", data=data)
        if envelope.version > self._version:
            reason = f"version {envelope.version}, this agent reads up to {self._version}"
            raise Damaged(reason, data=data, newer=True)
        try:
            return decode(body)
        except msgspec.MsgspecError as error:
            # The checksum is right, so this was written on purpose: a kind of step we do not know.
            raise Damaged(f"cannot be understood: {error}", data=data, newer=True) from error


def read_sealed(path: Path) -> bytes | None:
    """None without a file. :raises Damaged: it cannot be read. :raises Retryable: not now."""
    try:
        return read_plain(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in _OWN_TROUBLE:
            raise storage_error("read", path, error) from error
        raise Damaged(f"cannot be read: {error.strerror or error}") from error


def read_plain(path: Path) -> bytes:
    """Nothing but an ordinary file of sensible size: a FIFO would block, a link leads elsewhere.

    :raises OSError: it is something else, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file")
        if status.st_size > _LARGEST:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes are too many for a state file")
        return file.readall() or b""


def set_aside(path: Path, target: Path) -> None:
    """Move a damaged file, or what is in its place, to `target`; nothing there is success.

    :raises NodeFault: it stays where it is.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the other agent was quicker
            path.lstat()
            make_room(target)
            path.replace(target)
    except OSError as error:
        raise NodeFault(
            "StorageUnwritable",
            f"cannot move the damaged {path} to {target.parent}: {error.strerror or error}",
            hint="move the file away by hand",
        ) from error


def _checksum(version: int, body: bytes) -> str:
    return f"{zlib.crc32(body, zlib.crc32(b'%d:' % version)):08x}"
