"""What a cluster started, on disk, so that a later run can clear up after one that was killed.

A cluster belongs to one process. While that lives the cluster is running; when it is gone the
cluster is *stale*: its processes ended with it, but groups and disks were left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import cgroups
from .errors import RingError
from .processes import ProcessMark
from .storage import clusters_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE = "cluster.json"


@dataclass(slots=True)
class ClusterRecord:
    """The record of one cluster; ``write`` it before and after each start."""

    name: str
    owner: ProcessMark
    machines: dict[str, ProcessMark] = field(default_factory=dict)
    cgroups: list[str] = field(default_factory=list)
    server: str = ""
    is_ready: bool = False

    @property
    def folder(self) -> Path:
        return clusters_dir() / self.name

    @property
    def kubeconfig(self) -> Path:
        """There once the cluster is up."""
        return self.folder / "kubeconfig"

    @property
    def is_running(self) -> bool:
        return self.owner.alive

    @property
    def is_up(self) -> bool:
        """Its owner lives and has finished bringing it up."""
        return self.is_running and self.is_ready

    @classmethod
    def own(cls, name: str) -> ClusterRecord:
        """A record for a cluster of this process."""
        mark = ProcessMark.of(os.getpid())
        assert mark is not None, "this process is running"
        return cls(name, mark)

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f".{_FILE}"
        new.write_text(json.dumps(asdict(self)))
        new.rename(self.folder / _FILE)

    @classmethod
    def read(cls, name: str) -> ClusterRecord | None:
        """The record of a cluster, running or stale, or None."""
        try:
            told = json.loads((clusters_dir() / name / _FILE).read_text())
            told["owner"] = ProcessMark(**told["owner"])
            machines = told["machines"].items()
            told["machines"] = {machine: ProcessMark(**mark) for machine, mark in machines}
            return cls(**told)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise RingError(
                f"the record {clusters_dir() / name / _FILE} cannot be read ({error})",
                remedy=f"make sure that the cluster is stopped and remove {clusters_dir() / name}",
            ) from error

    def erase(self) -> None:
        """Remove everything the cluster left: processes, groups, mounts, disks.

        Raises:
            RingError: something is still mounted on its disks.
        """
        for machine in self.machines.values():
            machine.kill()
        for group in self.cgroups:
            cgroups.remove(group)
        for mounted in _mounts_below(self.folder):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        if left := _mounts_below(self.folder):
            raise RingError(f"still mounted: {', '.join(left)}", remedy="umount it and run again")
        shutil.rmtree(self.folder, ignore_errors=True)


def records() -> Iterator[ClusterRecord]:
    """The records of all clusters, running and stale; damaged ones are left out."""
    for path in sorted(clusters_dir().glob(f"*/{_FILE}")):
        with contextlib.suppress(RingError):
            if (record := ClusterRecord.read(path.parent.name)) is not None:
                yield record


def erase_stale() -> list[str]:
    """Clear up after every cluster whose owner is gone; returns their names."""
    stale = [record for record in records() if not record.is_running]
    for record in stale:
        record.erase()
    return [record.name for record in stale]


def _mounts_below(folder: Path) -> list[str]:
    """Mount points in this namespace, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (line.split()[4] for line in lines)
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)
