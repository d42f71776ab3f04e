"""Directories of sealed files, for effects and tombstones.

One damaged file is moved aside alone and said to be damaged; it never stops anything else.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec
import structlog

from nvdra_nodeagent.claims.seal import REASON_SUFFIX, SUFFIX, Seal, read_sealed, set_aside
from nvdra_nodeagent.durable import (
    make_room,
    remove_with_temporaries,
    storage_error,
    write_durably,
)

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)

VERSION: Final = 1

ContentT = TypeVar("ContentT", bound=msgspec.Struct)

_seal: Final = Seal("content", version=VERSION)


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
        return _names_in(self.directory)

    def names_set_aside(self) -> list[str]:
        """Those of which a damaged file lies in the quarantine, sorted."""
        prefix = f"{self.directory.name}."
        found = _names_in(self._quarantine)
        return [name.removeprefix(prefix) for name in found if name.startswith(prefix)]

    def is_set_aside(self, name: str) -> bool:
        return os.path.lexists(self._set_aside_path(name))

    def read(self, name: str) -> ContentT | None:
        """None when there is no file. :raises Damaged: there is one that cannot be used."""
        data = read_sealed(self._path(name))
        return None if data is None else _seal.open(data, self._decode)

    def write(self, name: str, content: ContentT) -> None:
        """Durable on return."""
        write_durably(self._path(name), _seal.close(content, version=VERSION), mode=0o600)

    def remove(self, name: str) -> None:
        """Durable on return, also when there was none. What was set aside of it goes too."""
        remove_with_temporaries(self._path(name))
        for path in (self._set_aside_path(name), self._reason_path(name)):
            with contextlib.suppress(OSError):
                make_room(path)
                path.unlink()

    def set_aside(self, name: str, reason: str) -> None:
        """Move the damaged file to the quarantine, with its reason beside it."""
        log.error("state file unusable", file=str(self._path(name)), reason=reason)
        set_aside(self._path(name), self._set_aside_path(name))
        with contextlib.suppress(OSError):  # for people only
            self._reason_path(name).write_text(f"{reason}\n", encoding="utf-8")

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}{SUFFIX}"

    def _set_aside_path(self, name: str) -> Path:
        return self._quarantine / f"{self.directory.name}.{name}{SUFFIX}"

    def _reason_path(self, name: str) -> Path:
        return self._quarantine / f"{self.directory.name}.{name}{REASON_SUFFIX}"


def _names_in(directory: Path) -> list[str]:
    try:
        found = os.listdir(directory)  # noqa: PTH208 - on the claim path
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error("list", directory, error) from error
    return sorted(
        name.removesuffix(SUFFIX)
        for name in found
        if name.endswith(SUFFIX) and not name.startswith(".")
    )
