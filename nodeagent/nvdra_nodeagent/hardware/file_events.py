"""Files of the driver that come, go or are replaced, told by the kernel (inotify).

Directories may be missing and come later: of each the nearest one above it that exists is watched
for the next part of the path. File systems that are mounted over a watched directory are not told;
the look at intervals finds them.
"""

from __future__ import annotations

import os
import posixpath
import struct
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import structlog

from nvdra_nodeagent.hardware.driver_root import LIBRARY_DIRS, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = structlog.get_logger(__name__)

DRIVER_FILES: Final = {
    "/dev": ("nvidia",),
    "/dev/nvidia-caps": ("nvidia-cap",),
    **dict.fromkeys(LIBRARY_DIRS, ("libnvidia-ml.so", "libcuda.so")),
}
"""Directories below a driver root, and how the names of the files begin that matter there."""

# inotify(7)
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x008, 0x040, 0x080
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_ONLYDIR: Final = 0x01000000
_OVERFLOW: Final = 0x4000
_MASK: Final = (
    _CLOSE_WRITE
    | _MOVED_FROM
    | _MOVED_TO
    | _CREATE
    | _DELETE
    | _DELETE_SELF
    | _MOVE_SELF
    | _ONLYDIR
)
_HEADER: Final = struct.Struct("iIII")
_READ_BYTES: Final = 64 * 1024


class FileAnnouncer:
    """An `Announcer` for `interests`: directories below `root`, and beginnings of file names."""

    def __init__(self, root: Path, interests: Mapping[str, Sequence[str]] = DRIVER_FILES) -> None:
        self._root = root
        self._interests = interests
        self._descriptor = -1
        self._libc: Any = None
        self._watched: dict[int, frozenset[str]] = {}

    def open(self) -> int | None:
        # Here, not above: a megabyte that only the running agent needs.
        import ctypes

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            cause = os.strerror(ctypes.get_errno())
            log.info("file events are not to be had; looking at intervals", cause=cause)
            return None
        return self._descriptor

    def arm(self) -> None:
        if self._descriptor < 0:
            return
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for directory, beginnings in self._interests.items():
            found, missing = self._nearest(directory)
            if found:
                wanted[found].update([missing] if missing else beginnings)
        watched: defaultdict[int, frozenset[str]] = defaultdict(frozenset)
        for directory, names in wanted.items():
            number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _MASK)
            if number >= 0:
                watched[number] |= names  # one directory may have two names
        for number in set(self._watched) - set(watched):
            self._libc.inotify_rm_watch(self._descriptor, number)
        self._watched = dict(watched)

    def news(self) -> tuple[str, ...]:
        found: list[str] = []
        while self._descriptor >= 0:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except OSError:  # nothing more to read
                break
            found += self._meanings(data)
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._watched = {}

    def _meanings(self, data: bytes) -> list[str]:
        found: list[str] = []
        place = 0
        while place < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, place)
            place += _HEADER.size
            name = os.fsdecode(data[place : place + length].rstrip(b"\0"))
            place += length
            if mask & _OVERFLOW:
                found.append("file events were missed")
            elif mask & (_DELETE_SELF | _MOVE_SELF):
                found.append("a watched directory went")
            elif name.startswith(tuple(self._watched.get(number, ()))):
                found.append(f"{name} changed")
        return found

    def _nearest(self, directory: str) -> tuple[str, str]:
        """A directory that exists, and the part of the path that is missing in it, if any."""
        missing = ""
        while True:
            try:
                found = resolve(self._root, directory)
            except OSError:
                found = None
            if found is not None and found.is_dir():
                return str(found), missing
            if directory == "/":
                return self._above_root()
            directory, missing = posixpath.split(directory)

    def _above_root(self) -> tuple[str, str]:
        missing, place = self._root.name, self._root.parent
        while not place.is_dir():
            missing, place = place.name, place.parent
        return str(place), missing
