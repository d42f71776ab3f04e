"""What Events say: reason, cause and next step, made from errors and other news of claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_api.reasons import REASONS

if TYPE_CHECKING:
    from nvdra_kube.occurrences import Severity
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.observer import Operation, StateKind
    from nvdra_nodeagent.errors import AgentError

_MAX_NOTE: Final = 1024
"""Bytes of an Event's note; more is cut off by whoever writes it."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One piece of news; it goes to the claim, and to others as it says."""

    severity: Severity
    reason: str
    note: str
    to_pods: bool = True
    to_node: bool = False


def failure(error: AgentError) -> Notice:
    """The next step is never cut off, however long the cause is."""
    known = REASONS.get(error.reason)
    step = error.hint or (known.next_step if known else "")
    room = _MAX_NOTE - len(step.encode(errors="replace")) - len("...; ")
    cause = _cut(error.message, room)
    note = f"{cause}; {step}" if step else cause
    return Notice("Warning", reason=error.reason, note=note)


def recovery(operation: Operation, ref: ClaimRef) -> Notice:
    done = "prepared" if operation == "prepare" else "given back"
    note = f"the devices of claim {ref.namespace}/{ref.name} are {done}: what failed has passed"
    return Notice("Normal", reason="ClaimRecovered", note=note)


def quarantine(kind: StateKind, *, ref: ClaimRef, cause: str) -> Notice:
    what, consequence = _damage(kind, ref)
    note = f"{what}: {_cut(cause, _MAX_NOTE // 2)}; {consequence}"
    return Notice("Warning", reason="StateQuarantined", note=note, to_pods=False, to_node=True)


def _damage(kind: StateKind, ref: ClaimRef) -> tuple[str, str]:
    """What happened and what follows; `ref.uid` is the name of the file for effects."""
    aside = "on this node could not be used and was moved aside"
    fenced = "its devices are given to nobody else until the claim is prepared or unprepared"
    match kind:
        case "effect":
            what, name = f"the agent's note of a GPU's setting {aside}", ref.uid
            return f"{what} ({name})", "it is made anew from the records of claims"
        case "checkpoint" if not ref.uid:
            what = f"the checkpoint of an earlier driver {aside}"
            return what, f"claims that have CDI files stay: of each, {fenced}"
        case "checkpoint":
            return f"claim {_shown(ref)} of an earlier driver was not taken over", fenced
        case _:
            return f"the {kind} of claim {_shown(ref)} {aside}", fenced


def undo_postponed(ref: ClaimRef, error: AgentError) -> Notice:
    note = (
        f"not everything of claim {_shown(ref)} could be undone: "
        f"{_cut(error.message, _MAX_NOTE // 2)} [{error.reason}]; it is tried again, and its "
        "devices are given to nobody until then"
    )
    return Notice("Warning", reason="UndoPostponed", note=note, to_pods=False, to_node=True)


def undo_completed(ref: ClaimRef) -> Notice:
    note = f"what was left of claim {_shown(ref)} is undone; its devices are free"
    return Notice("Normal", reason="UndoCompleted", note=note, to_pods=False, to_node=True)


def _shown(ref: ClaimRef) -> str:
    return str(ref) if ref.name else ref.uid


def _cut(text: str, room: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= room:
        return text
    return encoded[: max(0, room)].decode(errors="ignore") + "..."
