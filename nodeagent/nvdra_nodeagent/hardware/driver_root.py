"""Finds the driver's files below the container's mount of the host driver root.

Links are followed as the host would follow them: an absolute target means a path inside the driver
root, not inside this container, so a found path can always be named to the host.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from nvdra_nodeagent.hardware.errors import DriverMissing, HardwareError

LIBRARY_DIRS: Final = (
    "/",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
)
BINARY_DIRS: Final = ("/", "/opt/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin")

# As many links as Linux follows (path_resolution(7)).
_MAX_LINKS: Final = 40


class MountedDriverRoot:
    """The driver root at `container_path`, which the host knows as `host_path`."""

    def __init__(self, container_path: Path, *, host_path: Path) -> None:
        self._container_path = container_path
        self._host_path = host_path

    @property
    def container_path(self) -> Path:
        return self._container_path

    @property
    def host_path(self) -> Path:
        return self._host_path

    def library(self, name: str) -> Path:
        return self._find(name, LIBRARY_DIRS)

    def binary(self, name: str) -> Path:
        return self._find(name, BINARY_DIRS)

    def _find(self, name: str, directories: tuple[str, ...]) -> Path:
        try:
            for directory in directories:
                found = resolve(self._container_path, f"{directory}/{name}")
                if found is not None and found.is_file():
                    return found
        except OSError as error:
            raise HardwareError(
                f"cannot look for {name} under driver root {self._container_path}: {error}"
            ) from error
        raise DriverMissing(name, root=str(self._container_path), tried=directories)


def resolve(root: Path, path: str) -> Path | None:
    """What `path` is below `root`, links followed as if `root` were `/`; None if nothing is there.

    The answer starts with `root` as given. A link that names the outside by way of `root`'s own
    path counts as inside. Raises `OSError` where a directory may not be searched.
    """
    base = str(root).rstrip("/")
    pending = _parts(path)
    inside: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part == "..":
            del inside[-1:]
            continue
        here = "/".join((base, *inside, part))
        try:
            is_link = stat.S_ISLNK(os.lstat(here).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not is_link:
            inside.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            return None
        target = os.readlink(here)  # noqa: PTH115 - on the claim path, where a Path costs more
        if target.startswith("/"):
            inside, target = [], _below(root, target)
        pending = _parts(target) + pending
    return root.joinpath(*inside)


def _below(root: Path, target: str) -> str:
    """An absolute link target as a path below `root`."""
    spelled_out = Path(target)
    if root != Path("/") and spelled_out.is_relative_to(root):
        return str(spelled_out.relative_to(root))
    return target


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
