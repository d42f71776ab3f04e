"""The driver's process in its container, found from outside: to be killed at a chosen moment."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.ring.errors import RingError
from tests.e2e.ring.processes import ProcessMark


def process_of(container_id: str) -> ProcessMark:
    """The first process of a container, which is the driver itself.

    Raises:
        RingError: no process has the container's control group.
    """
    name = container_id.rpartition("/")[2]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            groups = (folder / "cgroup").read_text()
            status = (folder / "status").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if name in groups and _number_inside(status) == 1:
            mark = ProcessMark.of(int(folder.name))
            if mark is not None:
                return mark
    raise RingError(f"container {name} has no process", remedy="wait until its pod is Ready")


def _number_inside(status: str) -> int:
    """Its pid in the innermost namespace."""
    [line] = [line for line in status.splitlines() if line.startswith("NSpid:")]
    return int(line.split()[-1])
