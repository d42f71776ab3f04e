"""Driver roots with chosen files, for layouts that the simulator's profiles do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_nodeagent.cdi.driver_files import DriverFiles, find_driver_files
from nvdra_nodeagent.hardware.driver_root import MountedDriverRoot

if TYPE_CHECKING:
    from pathlib import Path

DRIVER_VERSION = "570.158.01"
LIB = "/usr/lib/x86_64-linux-gnu"
LIBCUDA = f"{LIB}/libcuda.so.{DRIVER_VERSION}"


def a_driver_root(root: Path, *files: str, links: dict[str, str] | None = None) -> Path:
    """Empty files at these paths below `root`, and links to targets."""
    for name in files:
        file = root / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o755)
    for name, target in (links or {}).items():
        link = root / name.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    return root


def driver_files(root: Path, *, kernel: str = "") -> DriverFiles:
    """What the agent finds in such a root."""
    mounted = MountedDriverRoot(root, host_path=root)
    return find_driver_files(mounted, version=DRIVER_VERSION, kernel=kernel)
