"""Asks the running `nvidia-imex` how it and its domain are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_nodeagent.imex.lifecycle import NEVER
from nvdra_nodeagent.imex.query import Query
from nvdra_nodeagent.imex.status import UNKNOWN, UP, DomainHealth, Watch, domain_health

if TYPE_CHECKING:
    from nvdra_nodeagent.imex.lifecycle import Process, Timings
    from nvdra_nodeagent.imex.logs import Log
    from nvdra_nodeagent.imex.processes import Ended
    from nvdra_nodeagent.imex.reactor import Reactor


class Observer:
    """`watch` is what the process says of itself, `health` what is known of the domain."""

    def __init__(
        self, *, program: str, config_path: str, reactor: Reactor, timings: Timings, log: Log
    ) -> None:
        self._config_path = config_path
        self._timings = timings
        self._log = log
        self._status = Query(program, reactor=reactor, with_errors=True)
        self._domain = Query(program, reactor=reactor, with_errors=False)
        self._since: float | None = None
        self._signalled_at: float | None = None
        self._health_at = NEVER
        self.watch = Watch()
        self.health = DomainHealth()

    def ended(self, ended: Ended) -> None:
        """Tell it of a child that ended."""
        if not self._status.ended(*ended):
            self._domain.ended(*ended)

    def advance(self, process: Process, *, now: float) -> tuple[bool, float]:
        """Ask what is due. Whether the process gave a sign of life, or cannot be asked for one;
        when to come again."""
        since = process.started_at if process.told and process.stopping_since is None else None
        if since != self._since:
            self._begin(since, now=now)
        if since is None:
            return False, NEVER
        alive = self._advance_status(process, now)
        self._advance_health(process, now)
        return alive, min(
            self._due(self._status, self.watch.next_at), self._due(self._domain, self._health_at)
        )

    def close(self) -> None:
        self._status.abandon()
        self._domain.abandon()

    def _begin(self, since: float | None, *, now: float) -> None:
        """Another process, or none: what was heard of the last one counts no more."""
        self.close()
        self._since = since
        self.watch = Watch.begun(now=now, timings=self._timings)
        self.health = DomainHealth()
        self._health_at = NEVER

    def _advance_status(self, process: Process, now: float) -> bool:
        self._status.expire(now)
        alive = False
        if (answer := self._status.take()) is not None:
            before = self.watch
            self.watch = before.heard(answer, now=now, timings=self._timings)
            alive = bool(self.watch.state) and not self.watch.misses
            # Workloads may be using it: no reason to end it that nobody can ask any more.
            alive = alive or (answer.is_of_nobody and process.answered_at is not None)
            if self.watch.state != before.state:
                self._log.info("nvidia-imex changed its state", state=self.watch.state or UNKNOWN)
            if self.watch.problem:
                self._log.debug("nvidia-imex did not say its state", cause=self.watch.problem)
            if self.watch.state and self._health_at == NEVER:
                # Also of one that does not become ready: it may wait for others.
                self._health_at = now + self._timings.health_first_s
        if not self._status.asking and now >= self.watch.next_at:
            self._status.ask("-c", self._config_path, "-q", timeout_s=self._timings.query_timeout_s)
        return alive

    def _advance_health(self, process: Process, now: float) -> None:
        if process.signalled_at != self._signalled_at:
            self._signalled_at = process.signalled_at
            self._health_at = min(self._health_at, now + self._timings.health_first_s)
        self._domain.expire(now)
        answer = self._domain.take()
        if answer is not None and process.told is not None:
            found = domain_health(answer, process.told)
            if found.state != self.health.state:
                self._log.info("domain changed its state", state=found.state)
            self.health = found
        if not self._domain.asking and now >= self._health_at:
            well = self.health.state == UP
            self._health_at = now + (
                self._timings.health_s if well else self._timings.health_unwell_s
            )
            self._domain.ask(
                "-c", self._config_path, "-N", "-j", timeout_s=self._timings.health_timeout_s
            )

    @staticmethod
    def _due(query: Query, at: float) -> float:
        return query.deadline if query.asking else at
