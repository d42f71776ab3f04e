"""Decides what to do about the `nvidia-imex` process next: start, signal, stop, kill or wait.

Pure: from what is wanted, what is known of the process, and the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from nvdra_nodeagent.imex.plan import Halt, Run

if TYPE_CHECKING:
    from nvdra_nodeagent.imex.plan import Desire

START: Final = "start"
STOP: Final = "stop"
KILL: Final = "kill"
SIGNAL: Final = "signal"
WAIT: Final = "wait"

NEVER: Final = float("inf")


class Timings(NamedTuple):
    """All in seconds.

    `signal_spacing_s` is a little more than the 5 s in which `nvidia-imex` ignores a second
    SIGUSR1, because two signals may arrive closer to each other than they were sent.
    """

    signal_spacing_s: float = 5.25
    signal_settle_s: float = 0.2
    stop_s: float = 10.0
    shutdown_stop_s: float = 20.0
    give_up_s: float = 27.0
    backoff_s: float = 0.5
    backoff_cap_s: float = 30.0
    stable_s: float = 60.0
    hang_s: float = 120.0
    query_first_s: float = 0.05
    query_unready_cap_s: float = 1.0
    query_ready_s: float = 5.0
    query_timeout_s: float = 5.0
    health_first_s: float = 5.0
    health_s: float = 60.0
    health_unwell_s: float = 15.0
    health_timeout_s: float = 15.0
    poll_s: float = 1.0


class Process(NamedTuple):
    """What is known of the process.

    `told` is what it runs with, None while none runs; `changed_at` is when names first led
    elsewhere since it was told; `unwatched_s` is how long nobody looked since it answered last.
    """

    told: Run | None = None
    started_at: float = 0.0
    answered_at: float | None = None
    unwatched_s: float = 0.0
    signalled_at: float | None = None
    changed_at: float | None = None
    stopping_since: float | None = None
    killed: bool = False
    failures: int = 0
    retry_at: float = 0.0

    def started(self, run: Run, *, now: float) -> Process:
        return Process(told=run, started_at=now, failures=self.failures)

    def answered(self, *, now: float) -> Process:
        return self._replace(answered_at=now, unwatched_s=0.0)

    def unwatched(self, for_s: float) -> Process:
        """The daemon stood still itself, as the node may have: silence says nothing then."""
        return self._replace(unwatched_s=self.unwatched_s + for_s)

    def names_changed(self, *, now: float) -> Process:
        return self._replace(changed_at=now) if self.changed_at is None else self

    def signalled(self, run: Run, *, now: float) -> Process:
        return self._replace(told=run, signalled_at=now, changed_at=None)

    def stopping(self, *, now: float) -> Process:
        return self._replace(stopping_since=now)

    def ended(self, *, now: float, timings: Timings) -> Process:
        """It is gone: at once for a restart that was asked for, later and later for failures."""
        if self.stopping_since is not None:
            return Process()
        lived_long = now - self.started_at >= timings.stable_s
        return self._failed(0 if lived_long else self.failures, now=now, timings=timings)

    def not_started(self, *, now: float, timings: Timings) -> Process:
        """It could not even be started."""
        return self._failed(self.failures, now=now, timings=timings)

    def _failed(self, before: int, *, now: float, timings: Timings) -> Process:
        pause = min(timings.backoff_s * 2.0 ** min(before, 30), timings.backoff_cap_s)
        return Process(failures=before + 1, retry_at=now + pause)


class Move(NamedTuple):
    """What to do now, and when to decide again if nothing else happens."""

    action: str
    at: float = NEVER


def next_move(
    process: Process, wanted: Desire, *, now: float, timings: Timings, leaving: bool = False
) -> Move:
    """`leaving`: the daemon itself is ending, and gives an orderly stop more time."""
    told = process.told
    if told is None:
        return _start(process, wanted, now=now)
    if process.stopping_since is not None:
        return _stop(
            process, now=now, limit_s=timings.shutdown_stop_s if leaving else timings.stop_s
        )
    if isinstance(wanted, Halt) or (isinstance(wanted, Run) and wanted.launch != told.launch):
        return Move(STOP)
    heard_at = process.answered_at or process.started_at
    silent_at = heard_at + process.unwatched_s + timings.hang_s
    if now >= silent_at:
        return Move(STOP)
    if process.changed_at is not None:
        due = signal_due_at(process, process.changed_at, timings=timings)
        return Move(SIGNAL) if now >= due else Move(WAIT, min(due, silent_at))
    return Move(WAIT, silent_at)


def signal_due_at(process: Process, changed_at: float, *, timings: Timings) -> float:
    """When the process may be told that names lead elsewhere.

    Not in the first moment, because changes come in bursts; not inside its deaf time, where the
    signal would be lost; and not before it shows that it is up: until then the signal kills it.
    Nodes that went away are told too: their addresses may soon be a foreign domain's.
    """
    due = changed_at + timings.signal_settle_s
    if process.signalled_at is not None:
        due = max(due, process.signalled_at + timings.signal_spacing_s)
    if process.answered_at is None:
        due = max(due, process.started_at + timings.signal_spacing_s)
    return due


def _start(process: Process, wanted: Desire, *, now: float) -> Move:
    if not isinstance(wanted, Run):
        return Move(WAIT)
    return Move(START) if now >= process.retry_at else Move(WAIT, process.retry_at)


def _stop(process: Process, *, now: float, limit_s: float) -> Move:
    if process.killed or process.stopping_since is None:
        return Move(WAIT)
    deadline = process.stopping_since + limit_s
    return Move(KILL) if now >= deadline else Move(WAIT, deadline)
