"""Unix sockets as files: bound out of sight, published by rename, removed only if still ours."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from typing import TYPE_CHECKING

from nvdra_nodeagent.errors import Permanent
from nvdra_nodeagent.kubelet.names import MAX_PATH_BYTES

if TYPE_CHECKING:
    from pathlib import Path


class SocketFile:
    """A listening Unix socket at `path`.

    The socket is bound under a dot-name, which the kubelet's directory watch skips, and appears
    under its own name by rename: whoever sees it can connect at once. A leftover of an earlier
    process is replaced by the same rename.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # No longer than `dra.sock`, so that a path which fits does not fail for its hidden twin.
        # Not the process id: two containers that share the directory may both have 1.
        self._hidden = path.with_name(f".{secrets.token_hex(3)}")
        self._identity: tuple[int, int] | None = None

    def bind(self) -> socket.socket:
        """Listen out of sight. Raises `Permanent` when the path cannot hold a socket."""
        for candidate in (self.path, self._hidden):
            _check_length(candidate)
        _refuse_non_socket(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self._hidden))
            listener.listen(128)
            listener.setblocking(False)
        except OSError as exc:
            listener.close()
            raise Permanent(
                "SocketUnusable",
                f"cannot listen on {self.path}: {exc.strerror}",
                hint="check that the directory exists and is writable for the driver",
            ) from exc
        return listener

    def publish(self) -> None:
        """Make the bound socket visible under its name."""
        status = self._hidden.stat()
        self._identity = (status.st_dev, status.st_ino)
        self._hidden.rename(self.path)

    def remove(self) -> None:
        """Unlink the socket, unless another process has put its own there meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            status = self.path.stat()
            if (status.st_dev, status.st_ino) == self._identity:
                self.path.unlink()
        with contextlib.suppress(FileNotFoundError):
            self._hidden.unlink()


def _check_length(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise Permanent(
            "SocketPathTooLong",
            f"socket path {path} has {length} bytes, the system allows {MAX_PATH_BYTES}",
            hint="use shorter kubelet plugin directories",
        )


def _refuse_non_socket(path: Path) -> None:
    """A rename would silently replace a file that somebody else put there."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):  # listening will fail, or nothing is there
        return
    if not stat.S_ISSOCK(mode):
        raise Permanent(
            "SocketUnusable",
            f"{path} exists and is not a socket",
            hint="move it away; the driver needs this path for the kubelet",
        )
