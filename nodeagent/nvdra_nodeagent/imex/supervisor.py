"""Does what `lifecycle` decides about the one `nvidia-imex` of this node."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from nvdra_nodeagent.imex import lifecycle, processes, rendering, storage
from nvdra_nodeagent.imex.hosts import with_slots
from nvdra_nodeagent.imex.lifecycle import Process
from nvdra_nodeagent.imex.plan import Run
from nvdra_nodeagent.imex.status import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.imex.lifecycle import Timings
    from nvdra_nodeagent.imex.logs import Log
    from nvdra_nodeagent.imex.plan import Desire
    from nvdra_nodeagent.imex.processes import Ended

FILES_UNWRITABLE = "FilesUnwritable"
HOSTS_UNWRITABLE = "HostsUnwritable"
IMEX_MISSING = "ImexMissing"
IMEX_ENDED = "ImexEnded"


class Supervisor:
    """`process` is what is known of it; `trouble` why it does not run, or not as wanted."""

    def __init__(
        self,
        *,
        program: str,
        directory: str,
        hosts: str,
        clock: Callable[[], float],
        timings: Timings,
        log: Log,
    ) -> None:
        """`clock` is that of `now` everywhere: a turn may be long, and what counts for a signal is
        when it was sent."""
        self._clock = clock
        self._program = program
        self._config_path = f"{directory}/{rendering.CONFIG_FILE}"
        self._nodes_path = f"{directory}/{rendering.NODES_FILE}"
        self._hosts_path = hosts
        self._timings = timings
        self._log = log
        self._pid: int | None = None
        self._names: tuple[tuple[str, str], ...] = ()
        self._names_retry_at = 0.0
        self.process = Process()
        self.trouble: Verdict | None = None

    @property
    def config_path(self) -> str:
        return self._config_path

    def advance(self, wanted: Desire, *, now: float, leaving: bool) -> float:
        """Do what is due; returns when something will be, if nothing else happens before."""
        while True:
            self._follow_names(wanted, now=now)
            move = lifecycle.next_move(
                self.process, wanted, now=now, timings=self._timings, leaving=leaving
            )
            if move.action == lifecycle.WAIT:
                return move.at
            self._do(move.action, wanted, now=now)

    def ended(self, ended: Ended, *, now: float) -> bool:
        """Tell it of a child that ended; whether it was `nvidia-imex`."""
        if ended.pid != self._pid:
            return False
        expected = self.process.stopping_since is not None
        self.process = self.process.ended(now=now, timings=self._timings)
        self._pid = None
        if expected:
            self._log.info("nvidia-imex stopped", how=str(ended))
        else:
            self._fail(IMEX_ENDED, f"nvidia-imex {ended}", now=now)
        return True

    def answered(self, *, now: float) -> None:
        """It gave a sign of life."""
        self.process = self.process.answered(now=now)

    def unwatched(self, for_s: float) -> None:
        """Nobody looked at it for so long."""
        self.process = self.process.unwatched(for_s)

    def abandon(self) -> None:
        """Make sure that nothing of it is left when the daemon ends."""
        if self._pid is not None:
            processes.kill_group(self._pid)

    def _do(self, action: str, wanted: Desire, *, now: float) -> None:
        if action == lifecycle.START and isinstance(wanted, Run):
            self._start(wanted, now=now)
        elif self._pid is not None and action == lifecycle.SIGNAL:
            self._signal(self._pid, wanted)
        elif self._pid is not None and action == lifecycle.STOP:
            self._log.info("stopping nvidia-imex", pid=self._pid, cause=self._why(wanted))
            processes.signal_process(self._pid, signal.SIGTERM)
            self.process = self.process.stopping(now=now)
        elif self._pid is not None and action == lifecycle.KILL:
            self._log.warning("killing nvidia-imex", pid=self._pid, cause="it does not stop")
            processes.kill_group(self._pid)
            self.process = self.process._replace(killed=True)

    def _start(self, run: Run, *, now: float) -> None:
        try:
            storage.write_if_other(self._config_path, run.launch.config.encode())
            storage.write_if_other(self._nodes_path, run.launch.nodes.encode())
        except OSError as error:
            return self._not_started(FILES_UNWRITABLE, f"cannot write for it: {error}", now=now)
        try:
            self._write_names(run)
        except OSError as error:
            return self._not_started(HOSTS_UNWRITABLE, f"cannot map names: {error}", now=now)
        path = processes.find_program(self._program)
        if path is None:
            detail = f"{self._program} is not on PATH: does this node's driver bring IMEX?"
            return self._not_started(IMEX_MISSING, detail, now=now)
        try:
            self._pid = processes.spawn(path, "-c", self._config_path)
        except OSError as error:
            return self._not_started(IMEX_MISSING, f"cannot run {path}: {error}", now=now)
        self.process = self.process.started(run, now=self._clock())
        self.trouble = None
        own = run.launch.own_index
        self._log.info("nvidia-imex started", pid=self._pid, index=own, generation=run.generation)
        return None

    def _signal(self, pid: int, wanted: Desire) -> None:
        run = wanted if isinstance(wanted, Run) else self.process.told
        assert run is not None
        processes.signal_process(pid, signal.SIGUSR1)
        self.process = self.process.signalled(run, now=self._clock())
        self._log.info("nvidia-imex told of changed names", generation=run.generation)

    def _follow_names(self, wanted: Desire, *, now: float) -> None:
        """Let names lead to the latest addresses while it runs; it is told later."""
        told = self.process.told
        if told is None or not isinstance(wanted, Run) or wanted.launch != told.launch:
            return
        if wanted.slots != self._names:
            if now < self._names_retry_at:
                return
            try:
                self._write_names(wanted)
            except OSError as error:
                self._names_retry_at = now + self._timings.poll_s
                self._complain(HOSTS_UNWRITABLE, f"cannot map names: {error}")
                return
            self.trouble = None
            self.process = self.process.names_changed(now=now)
        if self.process.changed_at is None and self.process.stopping_since is None:
            self.process = self.process._replace(told=wanted)

    def _write_names(self, run: Run) -> None:
        if run.slots:
            before = storage.read(self._hosts_path)
            # Whatever its bytes mean to others, they shall stay the same.
            after = with_slots(before.decode("latin-1"), run.slots).encode("latin-1")
            if after != before:
                storage.rewrite(self._hosts_path, after)
        self._names = run.slots

    def _not_started(self, reason: str, detail: str, *, now: float) -> None:
        self.process = self.process.not_started(now=now, timings=self._timings)
        self._fail(reason, detail, now=now)

    def _fail(self, reason: str, detail: str, *, now: float) -> None:
        pause = max(0.0, self.process.retry_at - now)
        self.trouble = Verdict(False, reason, detail)
        failures = self.process.failures
        self._log.error(
            "nvidia-imex does not run", reason=reason, cause=detail, failures=failures,
            next_try_s=round(pause, 1),
        )  # fmt: skip

    def _complain(self, reason: str, detail: str) -> None:
        """Once per kind: it is tried again and again."""
        trouble = Verdict(False, reason, detail)
        if self.trouble != trouble:
            self._log.error("names not mapped", reason=reason, cause=detail)
        self.trouble = trouble

    def _why(self, wanted: Desire) -> str:
        if not isinstance(wanted, Run):
            return wanted.reason if self.process.told else ""
        told = self.process.told
        if told is not None and told.launch == wanted.launch:
            return "it does not answer"
        return "it has to start with another configuration or place in the domain"
