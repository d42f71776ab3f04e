"""The control groups under which a node's pods live, in whatever layout the machine has."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from .errors import RingError

ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = "+cpuset +cpu +io +memory +pids"


def is_unified() -> bool:
    """True where the one cgroup v2 tree has it all."""
    return (ROOT / "cgroup.controllers").is_file()


def hierarchies() -> list[Path]:
    """The roots in which a node needs its group: one with cgroup v2, one per controller with v1."""
    if is_unified():
        return [ROOT]
    return sorted(path for path in ROOT.iterdir() if (path / "cgroup.procs").is_file())


def create(name: str) -> None:
    """Make the group everywhere; the kubelet refuses a root group that does not exist.

    Raises:
        RingError: the control groups cannot be written.
    """
    try:
        if is_unified():
            (ROOT / "cgroup.subtree_control").write_text(_CONTROLLERS)
        for hierarchy in hierarchies():
            group = hierarchy / name
            group.mkdir(exist_ok=True)
            _inherit_cpuset(hierarchy, group)
    except OSError as error:
        raise RingError(
            f"cannot make control group {name} under {ROOT}: {error}",
            remedy="run where control groups can be written (a privileged container, or the host)",
        ) from error


def _inherit_cpuset(parent: Path, group: Path) -> None:
    """A v1 cpuset without CPUs takes no processes."""
    if is_unified():
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).is_file():
            (group / name).write_text((parent / name).read_text())


def remove(name: str, *, deadline_s: float = 120.0) -> None:
    """Remove the group and everything below, everywhere; its processes are dead or dying.

    Left behind they would cost the next kubelet seconds per dead container.
    """
    give_up_at = time.monotonic() + deadline_s
    for hierarchy in hierarchies():
        while not _try_remove(hierarchy / name) and time.monotonic() < give_up_at:
            time.sleep(0.02)


def _try_remove(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not group.exists()
