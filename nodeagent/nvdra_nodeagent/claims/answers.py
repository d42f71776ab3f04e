"""What the kubelet is told of a claim that was not prepared or unprepared: it shows the text to
people, beside those of other drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.errors import AgentError, NodeFault, NotYet, Permanent, Retryable

if TYPE_CHECKING:
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.observer import Operation

_DOING: Final = {"prepare": "preparing", "unprepare": "unpreparing"}
_KINDS: Final[tuple[type[AgentError], ...]] = (Permanent, NotYet, NodeFault, Retryable, AgentError)
"""By which errors are judged; classes derived from these are made in ways of their own."""


def worded(error: AgentError, *, operation: Operation, ref: ClaimRef) -> AgentError:
    """The same error, saying what was done with which claim."""
    message = f"error {_DOING[operation]} devices for claim {ref}: {error.message}"
    kind = next(kind for kind in _KINDS if isinstance(error, kind))
    return kind(error.reason, message, hint=error.hint)


def unfinished(
    operation: Operation, ref: ClaimRef, *, waited_s: float, last: Retryable | None
) -> AgentError:
    error = Retryable(
        "ClaimBusy",
        f"not finished within {waited_s:g} s, and still worked on"
        + (f"; last failure: {last}" if last else ""),
        hint="the next call gets the result",
    )
    return worded(error, operation=operation, ref=ref)


def overtaken(operation: Operation, ref: ClaimRef) -> AgentError:
    error = Retryable("Overtaken", "the claim was unprepared meanwhile")
    return worded(error, operation=operation, ref=ref)


def crashed(operation: Operation, ref: ClaimRef, cause: Exception) -> AgentError:
    error = Retryable(
        "InternalError",
        f"unexpected {type(cause).__name__}: {cause}",
        hint="the agent's log has the details",
    )
    return worded(error, operation=operation, ref=ref)
