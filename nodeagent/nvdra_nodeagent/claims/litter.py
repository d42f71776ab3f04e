"""Files in the agent's directories that nobody will ask for: found first, removed one by one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from nvdra_nodeagent.durable import find_temporaries, is_older, remove_durably, storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LitterKind: TypeAlias = Literal["temporary", "cdi_temporary", "lock", "socket", "reason"]

_EARLIER_LOCKS: Final = ("pu.lock", "cp.lock")
_EARLIER_CHECKPOINT: Final = "checkpoint.json"
_HIDDEN_SOCKET: Final = re.compile(r"\.(?:[0-9a-f]{6}|dra\.sock\..+)")


@dataclass(frozen=True, slots=True)
class Litter:
    """A file, and what it was."""

    kind: LitterKind
    path: Path

    def remove(self) -> bool:
        """False when it is gone already, or in use again. :raises Retryable: it stays."""
        if self.kind == "lock" and _is_locked(self.path):
            return False
        return remove_durably(self.path)


def find_litter(
    state_dir: Path, directories: Sequence[Path], *, older_than_s: float
) -> list[Litter]:
    """Of the state directory and those that claims have below it; nothing younger than that.

    :raises Retryable: a directory cannot be listed.
    """
    temporaries = [
        Litter("temporary", path)
        for directory in (state_dir, *directories)
        for path in find_temporaries(directory, older_than_s=older_than_s)
    ]
    others = (*_locks(state_dir), *_hidden_sockets(state_dir), *_reasons(directories))
    return temporaries + [each for each in others if is_older(each.path, older_than_s)]


def _locks(state_dir: Path) -> Iterator[Litter]:
    """Lock files of an earlier driver, once its checkpoint is taken over."""
    if (state_dir / _EARLIER_CHECKPOINT).exists():
        return
    for name in _EARLIER_LOCKS:
        path = state_dir / name
        if path.is_file() and not _is_locked(path):
            yield Litter("lock", path)


def _hidden_sockets(state_dir: Path) -> Iterator[Litter]:
    """Sockets whose agent died between binding and publishing them."""
    for path in _listed(state_dir):
        if _HIDDEN_SOCKET.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(path.lstat().st_mode):
                    yield Litter("socket", path)


def _reasons(directories: Sequence[Path]) -> Iterator[Litter]:
    """Why a file was set aside that is not there any more."""
    for directory in directories:
        for path in _listed(directory):
            if path.suffix == ".reason" and not os.path.lexists(path.with_suffix(".json")):
                yield Litter("reason", path)


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error("list", directory, error) from error


def _is_locked(path: Path) -> bool:
    """Whether somebody holds it with flock(2)."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
