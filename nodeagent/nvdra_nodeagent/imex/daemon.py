"""The daemon itself: looks at everything once per turn, and does what is due."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from nvdra_nodeagent.imex import processes, reports
from nvdra_nodeagent.imex.agent_files import AgentFiles
from nvdra_nodeagent.imex.notices import Notices
from nvdra_nodeagent.imex.observer import Observer
from nvdra_nodeagent.imex.plan import Halt, Identity
from nvdra_nodeagent.imex.probes import INTERNAL_ERROR, Probes
from nvdra_nodeagent.imex.reactor import Reactor, Signals
from nvdra_nodeagent.imex.reports import Report
from nvdra_nodeagent.imex.status import Verdict, verdict
from nvdra_nodeagent.imex.supervisor import FILES_UNWRITABLE, Supervisor

if TYPE_CHECKING:
    from nvdra_nodeagent.imex.logs import Log
    from nvdra_nodeagent.imex.options import Options
    from nvdra_nodeagent.imex.plan import Desire

STOPPING = "Stopping"
_LEAVE = frozenset({signal.SIGTERM, signal.SIGINT})


class Daemon:
    """Level-triggered: every turn goes by the files and the processes as they are."""

    def __init__(self, options: Options, *, signals: Signals, log: Log) -> None:
        self._timings = options.timings
        self._log = log
        self._reactor = Reactor()
        self._signals = signals
        self._came: set[int] = set()
        self._leaving_since: float | None = None
        self._looked_at = self._reactor.now()
        self._was_ready = False
        identity = Identity(
            options.domain, options.clique, options.claim_uid, options.boot_id, options.address
        )
        self._files = AgentFiles(options.directory, identity, log=log)
        self._supervisor = Supervisor(
            program=options.imex,
            directory=options.directory,
            hosts=options.hosts,
            clock=self._reactor.now,
            timings=options.timings,
            log=log,
        )
        self._observer = Observer(
            program=options.control,
            config_path=self._supervisor.config_path,
            reactor=self._reactor,
            timings=options.timings,
            log=log,
        )
        self._ready = Report(f"{options.directory}/ready.json", log=log)
        self._domain = Report(f"{options.directory}/domain.json", log=log)
        self._notices = Notices(options.directory)
        self._verdict = Verdict(False, "Starting")
        self._probes = Probes(
            options.address,
            options.probe_port,
            reactor=self._reactor,
            verdict=lambda: self._verdict,
            started=lambda: self._was_ready,
            log=log,
        )

    def run(self) -> None:
        """Returns when SIGTERM or SIGINT came and `nvidia-imex` is gone."""
        self._reactor.watch(self._signals, self._take_signals)
        if self._notices.descriptor >= 0:
            self._reactor.watch(self._notices.descriptor, self._notices.drain)
        try:
            while True:
                due = self._try_to_look()
                if self._finished():
                    return
                wait_s = min(due - self._reactor.now(), self._timings.poll_s)
                self._reactor.turn(timeout_s=wait_s)
        finally:
            self._supervisor.abandon()
            self._observer.close()
            self._probes.close()

    def _try_to_look(self) -> float:
        """As `_look`; what nobody foresaw is told, and tried again, while `nvidia-imex` runs on."""
        try:
            return self._look()
        except Exception as error:
            import traceback  # only here: 0.7 MiB

            self._verdict = Verdict(False, INTERNAL_ERROR, f"{type(error).__name__}: {error}")
            self._log.error("internal error", cause=traceback.format_exc())
            return self._reactor.now() + self._timings.poll_s

    def _look(self) -> float:
        """One look at everything; returns when the next one is due at the latest."""
        now = self._reactor.now()
        self._notice_standstill(now)
        if self._leaving_since is None and self._came & _LEAVE:
            self._leaving_since = now
            self._log.info("stopping", cause="signal")
        self._came.clear()
        self._notices.watch()
        self._probes.listen()
        self._probes.expire(now)
        self._reap(now)
        self._files.refresh()
        wanted = self._wanted()
        if self._leaving_since is not None:
            self._tell(wanted)  # before anything is stopped
        due = self._supervisor.advance(wanted, now=now, leaving=self._leaving_since is not None)
        alive, ask_at = self._observer.advance(self._supervisor.process, now=now)
        if alive:
            self._supervisor.answered(now=now)
        self._tell(wanted)
        return min(due, ask_at)

    def _notice_standstill(self, now: float) -> None:
        """A container may be frozen, and a virtual machine paused, for minutes."""
        missed_s = now - self._looked_at - self._timings.poll_s
        self._looked_at = now
        if missed_s > self._timings.poll_s:
            self._log.warning("stood still", for_s=round(missed_s, 1))
            self._supervisor.unwatched(missed_s)

    def _wanted(self) -> Desire:
        if self._leaving_since is not None:
            return Halt(STOPPING, "the daemon is being stopped")
        return self._files.desire()

    def _tell(self, wanted: Desire) -> None:
        """Bring probes and files to what is true now."""
        process = self._supervisor.process
        found = verdict(wanted, process, self._observer.watch, trouble=self._supervisor.trouble)
        owner = self._files.owner
        if owner is not None:
            generation = process.told.generation if process.told else 0
            self._ready.say(reports.readiness(owner, found, generation=generation))
            self._domain.say(reports.health(owner, self._observer.health))
            if self._ready.problem:
                found = Verdict(False, FILES_UNWRITABLE, self._ready.problem)
        if (found.ready, found.reason) != (self._verdict.ready, self._verdict.reason):
            self._log.info("readiness changed", **found._asdict())
        self._verdict = found
        self._was_ready = self._was_ready or found.ready

    def _reap(self, now: float) -> None:
        for ended in processes.reap():
            if not self._supervisor.ended(ended, now=now):
                self._observer.ended(ended)

    def _take_signals(self) -> None:
        self._came |= self._signals.take()

    def _finished(self) -> bool:
        if self._leaving_since is None:
            return False
        if self._supervisor.process.told is None:
            return True
        overdue = self._reactor.now() - self._leaving_since >= self._timings.give_up_s
        if overdue:
            self._log.error("nvidia-imex is left behind", cause="it survives SIGKILL")
        return overdue
