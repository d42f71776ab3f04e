"""Wakes the daemon when something changes in the shared directory (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_EVENT: Final = struct.Struct("iIII")
_CLOSE_WRITE: Final = 0x8
_MOVED_TO: Final = 0x80
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_IGNORED: Final = 0x8000
_MASK: Final = _CLOSE_WRITE | _MOVED_TO | _DELETE | _DELETE_SELF


class Notices:
    """A descriptor that becomes readable when a file in `directory` was changed.

    Only a help: where watching is not possible, the daemon's slow poll sees changes too.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory.encode()
        self._library = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watching = False

    def watch(self) -> bool:
        """Begin, or begin again after the directory was replaced; cheap when all is well."""
        if not self._watching and self.descriptor >= 0:
            found = self._library.inotify_add_watch(self.descriptor, self._directory, _MASK)
            self._watching = found >= 0
        return self._watching

    def drain(self) -> None:
        """Forget what came; the daemon looks at the files themselves."""
        try:
            while data := os.read(self.descriptor, 16384):
                self._note_end(data)
        except OSError:
            pass

    def _note_end(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            if mask & (_IGNORED | _DELETE_SELF):
                self._watching = False
