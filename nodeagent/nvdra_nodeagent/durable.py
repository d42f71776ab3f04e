"""The one way a file of the agent's state gets onto the disk: whole or not at all.

Journal, effects and CDI specs all go through here, so a crash or a power cut at any point leaves
the old file or the new one, never half of one. Calls block; callers hop to a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from typing import TYPE_CHECKING

from nvdra_nodeagent.errors import NodeFault

if TYPE_CHECKING:
    from pathlib import Path

TEMP_SUFFIX = ".tmp"
"""Ending of files in the making. CDI readers pick up `.json` and `.yaml` only."""

_CLOCK_SLACK_S = 1.0  # file systems stamp with a coarser clock than `time.time`

_HINTS = {
    errno.ENOSPC: "free space on the node's disk; the write is repeated with the next attempt",
    errno.EDQUOT: "raise the disk quota or free space; the write is repeated with the next attempt",
    errno.EROFS: "remount the file system read-write or point the agent at a writable directory",
    errno.EACCES: "let the agent's user write there (the plugin's container runs as root)",
    errno.EPERM: "let the agent's user write there (the plugin's container runs as root)",
    errno.ENOTDIR: "move the file away that is where a directory is needed",
    errno.ENAMETOOLONG: "use a shorter path for the directory",
}


def write_durably(
    path: Path, data: bytes, *, mode: int = 0o644, into_existing: bool = False
) -> None:
    """Replace `path` by `data`: temporary file, fsync, rename, fsync of the directory.

    The directory is created when it is missing, but not with `into_existing`: whoever removed it
    meant to. On return the content survives a power cut.

    :raises Retryable: reason `DiskFull` or `StorageUnwritable`; `path` is as it was before, or
        whole and new where only the directory could not be synced.
    """
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMP_SUFFIX}")
    try:
        _write_temp(temp, data, mode=mode, into_existing=into_existing)
        temp.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
        raise storage_error("write", path, error) from error


def move_durably(source: Path, target: Path) -> None:
    """Rename within one directory, replacing `target`; done already is success.

    :raises Retryable: reason `StorageUnwritable`.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            source.replace(target)
        _sync_directory(source.parent)
    except OSError as error:
        raise storage_error("rename", source, error) from error


def remove_durably(path: Path) -> bool:
    """Remove `path`; on return it stays away even after a power cut.

    Returns whether it was there: removing what is gone already is success.

    :raises Retryable: reason `StorageUnwritable` when the file is there and cannot be removed.
    """
    try:
        path.unlink()
        _sync_directory(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error("remove", path, error) from error
    return True


def remove_with_temporaries(path: Path) -> bool:
    """As `remove_durably`, and with it what writers of `path` left that died in the middle.

    Only for whoever keeps others from writing `path` meanwhile.

    :raises Retryable: reason `StorageUnwritable`.
    """
    sweep_temporaries(path.parent, older_than_s=0.0, of_files=f"{path.name}.")
    return remove_durably(path)


def make_room(path: Path) -> None:
    """Remove a directory at `path`: it can neither be replaced by a file nor unlinked.

    :raises OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def sweep_temporaries(directory: Path, *, older_than_s: float, of_files: str = "") -> list[Path]:
    """Remove what writers that died in the middle left in `directory`; returns what was removed.

    Only temporaries of files whose names start with `of_files`, and none younger than
    `older_than_s`: another agent may be writing at this moment.

    :raises Retryable: reason `StorageUnwritable`.
    """
    found = find_temporaries(directory, older_than_s=older_than_s, of_files=of_files)
    return [path for path in found if remove_durably(path)]


def find_temporaries(directory: Path, *, older_than_s: float, of_files: str = "") -> list[Path]:
    """What `sweep_temporaries` would remove. :raises Retryable: reason `StorageUnwritable`."""
    try:
        found = [path for path in directory.iterdir() if is_temporary(path.name, of_files)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error("list", directory, error) from error
    return [path for path in found if is_older(path, older_than_s)]


def is_older(path: Path, age_s: float) -> bool:
    """Whether nobody has written `path` for `age_s`; False when there is no such file.

    A time in the future is of a clock that was set back since: whoever wrote it is done.
    """
    try:
        written = path.lstat().st_mtime
    except FileNotFoundError:
        return False
    now = time.time()
    return written <= now - age_s or written > now + max(age_s, _CLOCK_SLACK_S)


def is_temporary(name: str, of_files: str = "") -> bool:
    """Whether `write_durably` gives this name to a file in the making (of such a file)."""
    return name.startswith(f".{of_files}") and name.endswith(TEMP_SUFFIX)


def storage_error(verb: str, path: Path, error: OSError) -> NodeFault:
    """What a failed access to the agent's own files means to the caller."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return NodeFault(
        "DiskFull" if full else "StorageUnwritable",
        f"cannot {verb} {path}: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, "check the directory and the node's disk"),
    )


def _write_temp(temp: Path, data: bytes, *, mode: int, into_existing: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temp, flags, mode)
    except FileNotFoundError:
        if into_existing:
            raise
        temp.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temp, flags, mode)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        os.fchmod(descriptor, mode)  # the process's umask shall not decide who reads it
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
