"""What the claims tell whoever counts or reports: no metrics, no API calls in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.model import ClaimRef, PreparedDevice
    from nvdra_nodeagent.errors import AgentError
    from nvdra_nodeagent.steps.registry import Verb

Operation: TypeAlias = Literal["prepare", "unprepare"]
StateKind: TypeAlias = Literal["record", "effect", "tombstone", "checkpoint"]
"""Files of the agent that can be damaged one by one."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call for one claim, when it has ended."""

    operation: Operation
    ref: ClaimRef
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A file that could not be used and was moved aside.

    `uid` is the claim's; for an effect the name of its file, "" for a whole checkpoint. `ref` is
    the claim where it is known.
    """

    kind: StateKind
    uid: str
    reason: str
    ref: ClaimRef | None = None


class ClaimObserver:
    """Passes over what it is told; whoever wants to hear some of it derives from this.

    Called in the event loop, but for `step_done`. Must return at once and not raise.
    """

    def in_flight(self, operation: Operation, change: int) -> None:
        """A claim is begun (+1) or done (-1), whatever its outcome."""

    def seen(self, ref: ClaimRef, body: Body) -> None:
        """The claim as the API gave it, before it is prepared. Not to be changed."""

    def finished(self, attempt: Attempt, *, devices: Sequence[PreparedDevice]) -> None:
        """`devices` are those prepared; none for an unprepare."""

    def failed(self, attempt: Attempt, *, error: AgentError) -> None:
        """The kubelet is told the error: nothing is tried again before its next call."""

    def lock_waited(self, operation: Operation, *, wait_s: float) -> None:
        """How long a claim waited for its own lock and those of its GPUs."""

    def step_done(self, kind: str, verb: Verb, duration_s: float) -> None:
        """A step was applied, undone or looked at, with or without success. In any thread."""

    def prepared_devices(self, counts: Mapping[str, int]) -> None:
        """Devices that claims hold now, by type; absent types are 0."""

    def quarantined(self, damage: Damage) -> None:
        """A file of the agent's state was damaged."""

    def swept(self, kind: str) -> None:
        """Something left over was removed; one of `sweeper.SweptKind`."""

    def would_sweep(self, counts: Mapping[str, int]) -> None:
        """What a dry run has found, by kind; absent kinds are 0."""

    def tombstone(self, ref: ClaimRef, *, error: AgentError | None) -> None:
        """Undoing was put off because of `error`; None: what had been put off is undone."""


class Observers(ClaimObserver):
    """Tells each of several, in order."""

    def __init__(self, *observers: ClaimObserver) -> None:
        self._all = observers

    def in_flight(self, operation: Operation, change: int) -> None:
        for each in self._all:
            each.in_flight(operation, change)

    def seen(self, ref: ClaimRef, body: Body) -> None:
        for each in self._all:
            each.seen(ref, body)

    def finished(self, attempt: Attempt, *, devices: Sequence[PreparedDevice]) -> None:
        for each in self._all:
            each.finished(attempt, devices=devices)

    def failed(self, attempt: Attempt, *, error: AgentError) -> None:
        for each in self._all:
            each.failed(attempt, error=error)

    def lock_waited(self, operation: Operation, *, wait_s: float) -> None:
        for each in self._all:
            each.lock_waited(operation, wait_s=wait_s)

    def step_done(self, kind: str, verb: Verb, duration_s: float) -> None:
        for each in self._all:
            each.step_done(kind, verb, duration_s)

    def prepared_devices(self, counts: Mapping[str, int]) -> None:
        for each in self._all:
            each.prepared_devices(counts)

    def quarantined(self, damage: Damage) -> None:
        for each in self._all:
            each.quarantined(damage)

    def swept(self, kind: str) -> None:
        for each in self._all:
            each.swept(kind)

    def would_sweep(self, counts: Mapping[str, int]) -> None:
        for each in self._all:
            each.would_sweep(counts)

    def tombstone(self, ref: ClaimRef, *, error: AgentError | None) -> None:
        for each in self._all:
            each.tombstone(ref, error=error)
