"""What `nvidia-imex-ctl` says, when to ask it again, and what follows for readiness."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from nvdra_nodeagent.imex.plan import Halt, Stay

if TYPE_CHECKING:
    from nvdra_nodeagent.imex.lifecycle import Process, Timings
    from nvdra_nodeagent.imex.plan import Desire, Run

READY_OUTPUT: Final = b"READY\n"
READY: Final = "READY"
UNKNOWN: Final = "UNKNOWN"
UP: Final = "UP"
DEGRADED: Final = "DEGRADED"
DOWN: Final = "DOWN"

IMEX_STARTING: Final = "ImexStarting"
IMEX_NOT_READY: Final = "ImexNotReady"
IMEX_STOPPED: Final = "ImexStopped"
IMEX_STOPPING: Final = "ImexStopping"
QUERY_FAILED: Final = "QueryFailed"

_UNREACHABLE: Final = frozenset({"", "UNAVAILABLE", "NOT_RUNNING"})
_CONNECTED: Final = "CONNECTED"


NOT_RUN: Final = 126
NOT_FOUND: Final = 127
"""What shells, and the loader of libraries, say of a program that they could not run."""


class Answer(NamedTuple):
    """One run of `nvidia-imex-ctl`: its exit status, None after a time-out, and its output."""

    exit_status: int | None
    output: bytes

    @property
    def is_of_nobody(self) -> bool:
        """It could not be run, which says nothing of `nvidia-imex`."""
        return self.exit_status in (NOT_RUN, NOT_FOUND)

    def state(self) -> str:
        """The state it printed; empty when it did not get one."""
        if self.exit_status != 0:
            return ""
        if self.output == READY_OUTPUT:
            return READY
        words = self.output.decode("utf-8", "replace").split()
        text = " ".join(words)[:80]
        # Only the exact line counts: whatever else is printed with it is a reason for doubt.
        return f"not exactly READY: {text}" if text == READY else text

    def problem(self) -> str:
        """Why there is no state."""
        if self.exit_status is None:
            return "nvidia-imex-ctl did not answer in time"
        said = " ".join(self.output.decode("utf-8", "replace").split())[:200]
        return f"nvidia-imex-ctl ended with {self.exit_status}: {said or 'no output'}"


class Watch(NamedTuple):
    """What was heard of the running process so far, and when to ask again."""

    state: str = ""
    misses: int = 0
    problem: str = ""
    asked: int = 0
    next_at: float = 0.0

    @classmethod
    def begun(cls, *, now: float, timings: Timings) -> Watch:
        """For a process that was started just now."""
        return cls(next_at=now + timings.query_first_s)

    def heard(self, answer: Answer, *, now: float, timings: Timings) -> Watch:
        """One missing answer of a ready process is forgiven, another state never."""
        state, problem, misses = answer.state(), "", 0
        if state in _UNREACHABLE:
            problem, misses = answer.problem(), self.misses + 1
            state = self.state if self.state == READY and misses == 1 else ""
        asked = 0 if state == READY else self.asked + 1
        pause = timings.query_ready_s
        if state != READY or misses:
            pause = min(timings.query_first_s * 1.5 ** min(asked, 50), timings.query_unready_cap_s)
        return Watch(state, misses, problem, asked, now + pause)


class Verdict(NamedTuple):
    """Whether the node may use the domain, and if not, why: `reason` is a fixed word."""

    ready: bool
    reason: str
    detail: str = ""


def verdict(wanted: Desire, process: Process, watch: Watch, *, trouble: Verdict | None) -> Verdict:
    """What workloads, probes and people are told. `trouble` is what kept the daemon from acting."""
    if isinstance(wanted, Halt):
        return Verdict(wanted.idle, wanted.reason, wanted.detail)
    if process.told is None:
        if isinstance(wanted, Stay):
            return Verdict(False, wanted.reason, wanted.detail)
        return trouble or Verdict(False, IMEX_STOPPED, "nvidia-imex is about to be started")
    if process.stopping_since is not None:
        return Verdict(False, IMEX_STOPPING, "nvidia-imex is being restarted")
    if watch.state == READY:
        return Verdict(True, "Ready", trouble.detail if trouble else "")
    if watch.state:
        return Verdict(False, IMEX_NOT_READY, f"nvidia-imex is {watch.state}")
    if process.answered_at is None:
        detail = watch.problem or "nvidia-imex was started and has not answered yet"
        return Verdict(False, IMEX_STARTING, detail)
    return Verdict(False, QUERY_FAILED, watch.problem)


class NodeHealth(NamedTuple):
    """One node as the domain query shows it; `connection` is how this node is connected to it."""

    slot: int
    host: str
    state: str
    connection: str


class DomainHealth(NamedTuple):
    """The domain as seen from here."""

    state: str = UNKNOWN
    nodes: tuple[NodeHealth, ...] = ()


def domain_health(answer: Answer, run: Run) -> DomainHealth:
    """Judges the nodes that are members; slots that nobody has do not degrade a domain."""
    try:
        document = json.loads(answer.output) if answer.exit_status == 0 else None
    except (ValueError, RecursionError):
        document = None
    listed = document.get("nodes") if isinstance(document, dict) else None
    if not isinstance(listed, dict):
        return DomainHealth()
    own_index = run.launch.own_index
    own = next((listed.get(str(line)) for line, index in run.positions if index == own_index), None)
    connections = own.get("connections") if isinstance(own, dict) else None
    nodes = tuple(
        _node(index, listed.get(str(line)), connections, line) for line, index in run.positions
    )
    return DomainHealth(_judged(nodes, own_index=own_index), nodes)


def _node(index: int, node: object, connections: object, line: int) -> NodeHealth:
    link = connections.get(str(line)) if isinstance(connections, dict) else None
    return NodeHealth(
        index, _text(node, "host"), _text(node, "status") or UNKNOWN, _text(link, "status")
    )


def _text(value: object, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _judged(nodes: tuple[NodeHealth, ...], *, own_index: int) -> str:
    if any(each.slot == own_index and each.state != READY for each in nodes):
        return DOWN
    if all(each.state == READY and each.connection in (_CONNECTED, "") for each in nodes):
        return UP
    return DEGRADED
