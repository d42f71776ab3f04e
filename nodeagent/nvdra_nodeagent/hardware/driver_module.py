"""The loaded NVIDIA kernel module, seen in sysfs and procfs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class KernelDriverModule:
    """What the kernel tells of its `nvidia` module without the module being asked."""

    def __init__(self, *, sysfs: Path, procfs: Path) -> None:
        self._module = sysfs / "module" / "nvidia"
        self._gpus = procfs / "driver" / "nvidia" / "gpus"

    def load(self) -> str:
        """The kernel numbers the entries of sysfs in order of creation, so each load has another
        inode. Times would not do: sysfs gives them out when an entry is looked at."""
        try:
            return str(self._module.stat().st_ino)
        except OSError:
            return ""

    def gpus(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(os.listdir(self._gpus)))  # noqa: PTH208 - names are wanted
        except OSError:
            return ()
