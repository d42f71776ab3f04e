"""Processes told apart for certain: a pid may be used again, a pid with its start time is not.

Nothing here kills by name, ever.
"""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STATE, _START_TIME = 0, 19  # fields 3 and 22 of proc(5) stat, counted after the name


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command to its end and return its standard output.

    Raises:
        CommandFailed: it ended with another status than 0; has the end of its output.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words, input=stdin, env=env, cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        output = (done.stdout + done.stderr)[-2000:]
        raise CommandFailed(" ".join(words), status=done.returncode, output=output)
    return done.stdout


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """One process for all time (of this boot)."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessMark | None:
        """The process that has this pid now, or None. A zombie counts as gone."""
        fields = _stat(pid)
        if fields is None or fields[_STATE] == "Z":
            return None
        return cls(pid, int(fields[_START_TIME]))

    @property
    def alive(self) -> bool:
        return ProcessMark.of(self.pid) == self

    def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> bool:
        """Send the signal if it is still this process; tell whether it was."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(pidfd, with_signal)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True


def children(pid: int) -> list[int]:
    """The pids of the direct children of a (single-threaded) process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
