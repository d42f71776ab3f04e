"""Files in the shared directory, whole or not at all, and `/etc/hosts`, written in place."""

from __future__ import annotations

import os
from typing import NamedTuple

_LARGEST = 4 << 20


class Mark(NamedTuple):
    """Tells one version of a file from the next without reading it."""

    inode: int
    changed_ns: int
    size: int


def mark(path: str) -> Mark | None:
    """None when there is no such file (or none that can be seen)."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return Mark(found.st_ino, found.st_mtime_ns, found.st_size)


def read(path: str) -> bytes:
    """:raises OSError: it cannot be read."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib costs 1 MiB
        chunks = []
        left = _LARGEST
        while left and (chunk := file.read(left)):
            chunks.append(chunk)
            left -= len(chunk)
    return b"".join(chunks)


def write(path: str, data: bytes) -> None:
    """Replace `path`: temporary file, fsync, rename. One writer, so one temporary name.

    :raises OSError: `path` is as it was before.
    """
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)  # noqa: PTH105


def write_if_other(path: str, data: bytes) -> bool:
    """As `write`, unless `path` says that already; returns whether it wrote."""
    try:
        if read(path) == data:
            return False
    except OSError:
        pass
    write(path, data)
    return True


def rewrite(path: str, data: bytes) -> None:
    """Change an existing file in place: a mount point cannot be replaced by another file.

    Cut to length last, so that at no time there is less in it than before and after.

    :raises OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY)
    try:
        _write_all(descriptor, data)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
