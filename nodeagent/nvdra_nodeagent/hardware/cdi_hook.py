"""The program on the host that CDI hooks run: one that is there, or a copy that we put there.

Runtimes start hooks in the host's file system, where this container's own files do not exist.
"""

from __future__ import annotations

import filecmp
import os
import threading
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.durable import write_durably
from nvdra_nodeagent.errors import Retryable
from nvdra_nodeagent.hardware.driver_root import resolve
from nvdra_nodeagent.hardware.errors import HookMissing

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = "nvidia-cdi-hook"
_MODE: Final = 0o755


class HostHook:
    """A hook that the node's owner installed. Checked only where the host's root is visible."""

    def __init__(self, path: str, *, host_root: Path | None = None) -> None:
        self._path = path
        self._host_root = host_root

    def host_path(self) -> str:
        if self._host_root is not None:
            seen = resolve(self._host_root, self._path)
            if seen is None or not _is_program(seen):
                place = self._host_root / self._path.lstrip("/")
                raise HookMissing(self._path, source=str(place), cause="no executable file there")
        return self._path


class CopiedHook:
    """The image's own hook, copied into the plugin directory, which both sides see.

    `host_plugin_dir` is that directory's path on the host if it differs from ours.
    """

    def __init__(
        self, source: Path, *, plugin_dir: Path, host_plugin_dir: Path | None = None
    ) -> None:
        self._source = source
        self._copy = plugin_dir / _NAME
        self._host_path = str((host_plugin_dir or plugin_dir) / _NAME)
        self._lock = threading.Lock()
        self._compared = False

    def host_path(self) -> str:
        """Copies at first use, when the image brings another version, and when it has vanished."""
        with self._lock:
            if not self._compared or not _is_program(self._copy):
                self._provide()
                self._compared = True
        return self._host_path

    def _provide(self) -> None:
        try:
            if _is_program(self._copy) and filecmp.cmp(self._source, self._copy, shallow=False):
                return
            write_durably(self._copy, self._source.read_bytes(), mode=_MODE)
        except (OSError, Retryable) as error:
            raise HookMissing(
                str(self._copy), source=str(self._source), cause=str(error)
            ) from error


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
