"""Small state files that tell by themselves whether they are whole: version, checksum, content.

One damaged file is moved aside alone and said to be damaged; it never stops anything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zlib
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec
import structlog

from nvdra_nodeagent.durable import remove_with_temporaries, storage_error, write_durably
from nvdra_nodeagent.errors import NodeFault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = structlog.get_logger(__name__)

VERSION: Final = 1
SUFFIX: Final = ".json"
_REASON_SUFFIX: Final = ".reason"
_LARGEST: Final = 4 * 1024 * 1024
_OWN_TROUBLE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

ContentT = TypeVar("ContentT", bound=msgspec.Struct)


class Damaged(Exception):
    """A file that is not what was written. `newer`: it is whole, but of a later version."""

    def __init__(self, reason: str, *, newer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.newer = newer


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outer form never changes, so that every version can tell newer from damaged."""

    version: int
    checksum: str
    content: msgspec.Raw


_encoder: Final = msgspec.json.Encoder(order="deterministic")
_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode


def seal(content: msgspec.Struct, *, version: int = VERSION) -> bytes:
    body = _encoder.encode(content)
    return _encoder.encode(_Envelope(version, _checksum(version, body), msgspec.Raw(body)))


def unseal(data: bytes, decode: Callable[[msgspec.Raw], ContentT]) -> ContentT:
    """:raises Damaged: `data` is not exactly what `seal` made."""
    try:
        envelope = _decode_envelope(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"not in the form of a state file: {error}") from error
    if envelope.checksum != _checksum(envelope.version, bytes(envelope.content)):
        raise Damaged("checksum does not match the content")
    if data != _encoder.encode(envelope):  # a changed byte that the checksum does not cover
        raise Damaged("not in the form in which it is written")
    if envelope.version > VERSION:
        reason = f"version {envelope.version}, this agent reads up to {VERSION}"
        raise Damaged(reason, newer=True)
    try:
        return decode(envelope.content)
    except msgspec.MsgspecError as error:
        # The checksum is right, so this was written on purpose.
        raise Damaged(f"cannot be understood: {error}", newer=True) from error


def _checksum(version: int, body: bytes) -> str:
    return f"{zlib.crc32(body, zlib.crc32(b'%d:' % version)):08x}"


class SealedFiles(Generic[ContentT]):
    """Files of one type in one directory, by name without suffix. Calls block.

    Storage errors are `Retryable`. Whoever writes or sets aside a file has its lock.
    """

    def __init__(self, directory: Path, *, quarantine: Path, type_: type[ContentT]) -> None:
        """Damaged files go to `quarantine`, their names prefixed with that of `directory`."""
        self.directory = directory
        self._quarantine = quarantine
        self._decode = msgspec.json.Decoder(type_).decode

    def names(self) -> list[str]:
        """Sorted; none while there is no directory."""
        try:
            found = os.listdir(self.directory)  # noqa: PTH208 - on the claim path
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise storage_error("list", self.directory, error) from error
        return sorted(
            name.removesuffix(SUFFIX)
            for name in found
            if name.endswith(SUFFIX) and not name.startswith(".")
        )

    def read(self, name: str) -> ContentT | None:
        """None when there is no file. :raises Damaged: there is one that cannot be used."""
        path = self._path(name)
        try:
            data = _read_plain(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in _OWN_TROUBLE:
                raise storage_error("read", path, error) from error
            raise Damaged(f"cannot be read: {error.strerror or error}") from error
        return unseal(data, self._decode)

    def write(self, name: str, content: ContentT) -> None:
        """Durable on return."""
        write_durably(self._path(name), seal(content), mode=0o600)

    def remove(self, name: str) -> None:
        """Durable on return, also when there was none. What was set aside of it goes too."""
        remove_with_temporaries(self._path(name))
        for path in (self._set_aside_path(name), self._reason_path(name)):
            with contextlib.suppress(OSError):
                path.unlink()

    def set_aside(self, name: str, reason: str) -> None:
        """Move the damaged file to the quarantine, with its reason beside it."""
        log.error("state file unusable", file=str(self._path(name)), reason=reason)
        target = self._set_aside_path(name)
        try:
            self._quarantine.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the other agent was quicker
                self._path(name).replace(target)
        except OSError as error:
            raise NodeFault(
                "StorageUnwritable",
                f"cannot move the damaged {self._path(name)} to {self._quarantine}: "
                f"{error.strerror or error}",
                hint="move the file away by hand",
            ) from error
        with contextlib.suppress(OSError):  # for people only
            self._reason_path(name).write_text(f"{reason}\n", encoding="utf-8")

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}{SUFFIX}"

    def _set_aside_path(self, name: str) -> Path:
        return self._quarantine / f"{self.directory.name}.{name}{SUFFIX}"

    def _reason_path(self, name: str) -> Path:
        return self._quarantine / f"{self.directory.name}.{name}{_REASON_SUFFIX}"


def _read_plain(path: Path) -> bytes:
    """Nothing but an ordinary file of sensible size: a FIFO would block, a link leads elsewhere."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise OSError(errno.EINVAL, "not an ordinary file of sensible size")
        return file.readall() or b""
