"""A simulated machine: namespaces around a first process, daemons inside, one pid to cut power.

Everything inside dies with its first process, and that ends when the harness ends, even by
SIGKILL: its standard input is a pipe whose other end only the harness holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .errors import CommandFailed, Ended, RingError
from .patience import eventually
from .processes import ProcessMark, children

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_INIT = Path(__file__).with_name("machine_init.py")
NAMESPACES = ("--mount", "--pid", "--net", "--uts", "--ipc")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePlan:
    """What the first process sets up. Without ``disk`` the machine's own file system is kept."""

    hostname: str
    disk: Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    binds: Mapping[str, str] = field(default_factory=dict)
    kernel_settings: Mapping[str, str] = field(default_factory=dict)
    network_settings: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        plan = asdict(self)
        if self.disk is None:
            del plan["disk"]
        else:
            plan |= {"disk": str(self.disk), "root": str(self.disk.with_name("root"))}
        return json.dumps(plan)


class Machine:
    """One set of namespaces, from power-on to power-off."""

    def __init__(self, starter: subprocess.Popen[str], init: ProcessMark, name: str) -> None:
        self.name = name
        self.init = init
        self._starter = starter
        self._daemons: list[subprocess.Popen[bytes]] = []

    @classmethod
    def power_on(cls, plan: MachinePlan, *, folder: Path) -> Machine:
        """Start the first process and wait until it has laid out the file system.

        Raises:
            RingError: it ended instead; the message has what it said.
        """
        folder.mkdir(parents=True, exist_ok=True)
        plan_file, log = folder / "plan.json", folder / "init.log"
        plan_file.write_text(plan.as_json())
        with log.open("w") as errors:
            starter = subprocess.Popen(
                ["unshare", *NAMESPACES, "--fork", "--kill-child", "--",
                 sys.executable, "-I", "-S", _INIT, plan_file],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert starter.stdout is not None
        said = starter.stdout.readline()
        inside = [mark for pid in children(starter.pid) if (mark := ProcessMark.of(pid))]
        if said != "ready\n" or not inside:
            starter.kill()
            starter.wait()
            raise RingError(f"machine {plan.hostname} did not start: {log.read_text()[-1500:]}")
        return cls(starter, inside[0], plan.hostname)

    @property
    def is_on(self) -> bool:
        return self._starter.poll() is None

    @property
    def root(self) -> Path:
        """The machine's file system seen from outside (absolute links inside lead astray)."""
        return Path(f"/proc/{self.init.pid}/root")

    def power_off(self) -> None:
        """Cut the power: all processes and mounts of the machine are gone on return."""
        self.init.kill(signal.SIGKILL)
        for pipe in (self._starter.stdin, self._starter.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._starter.wait()
        for process in self._daemons:
            process.wait()
        self._daemons.clear()

    def spawn(
        self, command: Sequence[str | Path], *, env: Mapping[str, str], output: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """Start a command inside; what is returned ends when it does, or the machine."""
        self._daemons = [process for process in self._daemons if process.poll() is None]
        started = subprocess.Popen(
            self.inside(command), env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        self._daemons.append(started)
        return started

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """The command as it has to be called from outside to run in all namespaces."""
        spaces = ["nsenter", f"--target={self.init.pid}", *NAMESPACES, "--"]
        return [*spaces, *(str(word) for word in command)]

    def in_network(self, command: Sequence[str | Path]) -> list[str]:
        """The same for the network namespace only: outside files, inside addresses."""
        spaces = ["nsenter", f"--net=/proc/{self.init.pid}/ns/net", "--"]
        return [*spaces, *(str(word) for word in command)]

    def enter(
        self, *command: str | Path, stdin: str | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a command inside to its end and return its standard output.

        Patterns such as ``*`` need a shell inside: ``enter("sh", "-c", "ls /run/cdi/*")``.

        Raises:
            CommandFailed: it ended with another status than 0.
        """
        done = subprocess.run(
            self.inside(command), input=stdin, env={**os.environ, **(env or {})},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            words = f"{self.name}: {' '.join(map(str, command))}"
            output = (done.stdout + done.stderr)[-2000:]
            raise CommandFailed(words, status=done.returncode, output=output)
        return done.stdout


class Daemon:
    """A program that runs inside a machine for as long as it should, and can be stopped.

    ``machine`` gives the machine as it is now: a reboot makes a new one.
    """

    def __init__(
        self,
        machine: Callable[[], Machine],
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = Path(command[0]).name
        self._stop_signal = stop_signal
        self.log = log
        self._machine = machine
        self._command = command
        self._env = {**os.environ, **(env or {})}
        self._outside: subprocess.Popen[bytes] | None = None
        self._inside: ProcessMark | None = None

    def __repr__(self) -> str:
        return (
            f"<{self.name} on {self._machine().name}: {'runs' if self.is_running else 'stopped'}>"
        )

    @property
    def is_running(self) -> bool:
        return self._outside is not None and self._outside.poll() is None

    def start(self) -> None:
        """Start it if it does not run; its output goes to the end of the log."""
        if self.is_running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._outside = self._machine().spawn(self._command, env=self._env, output=output)
        self._inside = None

    def stop(self, with_signal: signal.Signals | None = None) -> None:
        """Send its stop signal and wait until it is gone; no effect when it does not run."""
        if self._outside is None or not self.is_running:
            return
        self.pid_mark().kill(with_signal or self._stop_signal)
        self._outside.wait()

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pid_mark(self) -> ProcessMark:
        """The program itself, not the ``nsenter`` that waits for it outside."""
        if self._inside is None:
            self._inside = eventually(self._find_inside, until=f"{self.name} runs")
        return self._inside

    def _find_inside(self) -> ProcessMark | None:
        self.check()
        assert self._outside is not None
        return next(map(ProcessMark.of, children(self._outside.pid)), None)

    def check(self) -> None:
        """Raise Ended with the end of the log when it should run and does not."""
        if not self.is_running:
            status = self._outside.poll() if self._outside else "never started"
            raise Ended(
                f"{self.name} on {self._machine().name} ended ({status})",
                remedy=f"see {self.log}, which ends with: {last_words(self.log)}",
            )


def last_words(log: Path, *, lines: int = 5) -> str:
    try:
        return " | ".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return str(error)
