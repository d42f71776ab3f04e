"""Reversible steps: data that the journal keeps, and a handler that makes it true or untrue.

A new kind of step is a tagged Struct with a handler, added to `AnyStep` and to `StepHandlers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from nvdra_nodeagent.steps.cdi import CdiStep

if TYPE_CHECKING:
    from collections.abc import Mapping

AnyStep: TypeAlias = CdiStep
"""Every kind of step that a record may hold; the `kind` field tells them apart."""

Result: TypeAlias = dict[str, str] | None
"""What undoing needs to know and the step alone cannot tell, e.g. a value found before."""

StepT = TypeVar("StepT", contravariant=True)


class StepHandler(Protocol[StepT]):
    """Makes steps of one kind true. Calls block, and are made with the claim and its GPUs locked.

    Each call may be repeated after a crash anywhere in an earlier one. All may raise `AgentError`.
    """

    def apply(self, step: StepT) -> Result:
        """Make it true, also when half of it is true already.

        A result other than None costs a second durable write of the record.
        """
        ...

    def undo(self, step: StepT, result: Result) -> None:
        """Make it untrue, also when it never was true. `result` is None when none was recorded."""
        ...

    def holds(self, step: StepT, result: Result) -> bool:
        """A cheap look at whether the effect is there: an earlier prepare may be answered again."""
        ...


class StepHandlers:
    """The handler of each kind of step."""

    def __init__(self, handlers: Mapping[type[AnyStep], StepHandler[Any]]) -> None:
        self._handlers = dict(handlers)

    def handler(self, step: AnyStep) -> StepHandler[Any]:
        return self._handlers[type(step)]
