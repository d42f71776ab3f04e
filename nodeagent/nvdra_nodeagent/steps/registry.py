"""Reversible steps: data that the journal keeps, and a handler that makes it true or untrue.

A new kind of step is a tagged Struct with a handler, added to `AnyStep` and to the wiring of the
claims. Whatever goes through all kinds (crash tests do) asks `step_kinds`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, get_args

from nvdra_nodeagent.steps.cdi import CdiStep
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep, DaemonCdiStep
from nvdra_nodeagent.steps.domain_dir import DomainDirStep
from nvdra_nodeagent.steps.domain_ready import DomainReadyStep
from nvdra_nodeagent.steps.node_label import NodeLabelStep
from nvdra_nodeagent.steps.time_slice import TimeSliceStep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GpuStep: TypeAlias = CdiStep | TimeSliceStep
"""Steps of claims for GPUs. Every driver undoes CDI files of claims that it has no record of."""

DomainStep: TypeAlias = (
    NodeLabelStep | DomainReadyStep | DomainDirStep | ChannelCdiStep | DaemonCdiStep
)
"""Steps of claims for channels and daemons of ComputeDomains."""

AnyStep: TypeAlias = GpuStep | DomainStep
"""Every kind of step that a record may hold; the `kind` field tells them apart."""

SharedStep: TypeAlias = TimeSliceStep
"""Those of them that take a reference to an effect of a GPU."""

Result: TypeAlias = dict[str, str] | None
"""What undoing needs to know and the step alone cannot tell, e.g. a value found before."""

Verb: TypeAlias = Literal["apply", "undo", "holds"]

StepT = TypeVar("StepT", contravariant=True)
T = TypeVar("T")


class Timing(Protocol):
    """Told how long each call took, in the thread that made it."""

    def __call__(self, kind: str, verb: Verb, duration_s: float) -> None: ...


class StepHandler(Protocol[StepT]):
    """Makes steps of one kind true. Calls block, and are made with the claim and its GPUs locked.

    Each call may be repeated after a crash anywhere in an earlier one. All may raise `AgentError`.
    """

    @property
    def can_wait(self) -> bool:
        """Whether a claim is free of the step though undoing it has failed and is left for later.

        Its GPU is granted to nobody until then.
        """
        ...

    @property
    def outlasts_boot(self) -> bool:
        """Whether a boot of the machine leaves it as it is: then the same step of the claim's next
        preparation takes it over, and nothing is undone in between."""
        ...

    def apply(self, step: StepT) -> Result:
        """Make it true, also when half of it is true already.

        A result other than None costs a second durable write of the record.
        """
        ...

    def undo(self, step: StepT, result: Result) -> None:
        """Make it untrue, also when it never was true. `result` is None when none was recorded."""
        ...

    def forget(self, claim_uid: str) -> None:
        """Undo what steps of this kind may have left of a claim whose record is lost."""
        ...

    def holds(self, step: StepT, result: Result) -> bool:
        """A cheap look at whether the effect is there: an earlier prepare may be answered again."""
        ...


class StepHandlers:
    """The handler of each kind of step that one driver's records may hold."""

    def __init__(
        self,
        handlers: Mapping[type[AnyStep], StepHandler[Any]],
        *,
        timing: Timing = lambda kind, verb, duration_s: None,
    ) -> None:
        kinds = set(get_args(GpuStep))
        if not handlers.keys() <= kinds:
            kinds |= set(get_args(DomainStep))
        if missing := kinds - handlers.keys():
            raise ValueError(f"no handler for steps of kind {sorted(map(kind_of, missing))}")
        self._handlers = {
            step: _Timed(handler, kind=kind_of(step), timing=timing)
            for step, handler in handlers.items()
        }

    def handler(self, step: AnyStep) -> StepHandler[Any]:
        return self._handlers[type(step)]

    def all(self) -> tuple[StepHandler[Any], ...]:
        return tuple(self._handlers.values())


def step_kinds() -> tuple[str, ...]:
    """Every kind that there is."""
    return tuple(kind_of(step) for step in get_args(AnyStep))


def kind_of(step: type[AnyStep]) -> str:
    """The name of a kind of step, as records and metrics have it."""
    return str(step.__struct_config__.tag)


class _Timed(StepHandler[Any]):
    """A handler whose calls are timed, failing ones too."""

    def __init__(self, handler: StepHandler[Any], *, kind: str, timing: Timing) -> None:
        self._handler = handler
        self._kind = kind
        self._timing = timing

    @property
    def can_wait(self) -> bool:
        return self._handler.can_wait

    @property
    def outlasts_boot(self) -> bool:
        return self._handler.outlasts_boot

    def apply(self, step: AnyStep) -> Result:
        return self._measured("apply", lambda: self._handler.apply(step))

    def undo(self, step: AnyStep, result: Result) -> None:
        self._measured("undo", lambda: self._handler.undo(step, result))

    def forget(self, claim_uid: str) -> None:
        self._handler.forget(claim_uid)

    def holds(self, step: AnyStep, result: Result) -> bool:
        return self._measured("holds", lambda: self._handler.holds(step, result))

    def _measured(self, verb: Verb, call: Callable[[], T]) -> T:
        started = time.monotonic()
        try:
            return call()
        finally:
            self._timing(self._kind, verb, time.monotonic() - started)
