"""What is written down of one effect of a GPU, and what can be told of it when that is lost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from nvdra_nodeagent.claims.record import StepEntry
from nvdra_nodeagent.steps.registry import SharedStep, kind_of
from nvdra_nodeagent.steps.shared import Value  # noqa: TC001 - msgspec evaluates it

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from nvdra_nodeagent.steps.registry import AnyStep

_GPU: Final = re.compile(r"GPU-[0-9A-Fa-f-]{1,64}")
_UNKNOWN: Final = "unknown."


class Effect(msgspec.Struct, frozen=True):
    """A setting of a GPU that claims hold. `found` lacks parts that the driver did not tell.

    `boot_id` and `driver_load` say when it was last known to be there. `leaving`: the last holder
    has begun to restore what was found, so some of it may be restored.
    """

    kind: str
    gpu_uuid: str
    found: Value
    value: Value
    holders: tuple[str, ...]
    boot_id: str
    driver_load: str
    leaving: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}.{self.gpu_uuid}"

    def without(self, holder: str) -> Effect:
        rest = tuple(uid for uid in self.holders if uid != holder)
        return msgspec.structs.replace(self, holders=rest)


class Holding(Protocol):
    """The steps of a claim: a record or a tombstone."""

    @property
    def steps(self) -> Sequence[StepEntry]: ...


def unknown_holder(name: str) -> str:
    """Stands for the holders of an effect of which nothing is known but that it was there. Not a
    claim's UID."""
    return f"{_UNKNOWN}{name}"


def is_unknown(holder: str) -> bool:
    return holder.startswith(_UNKNOWN)


def gpu_of(name: str, *, kinds: Collection[str]) -> str | None:
    """The GPU of an effect by its name; None for what is not the name of an effect."""
    kind, _, gpu_uuid = name.partition(".")
    return gpu_uuid if kind in kinds and _GPU.fullmatch(gpu_uuid) else None


def rebuilt(name: str, holdings: Iterable[Holding], *, was_there: bool) -> Effect | None:
    """As steps that were applied tell it; None if there are none.

    Where the effect `was_there`, claims whose step may have been applied count as holders too.
    """
    entries = [*_entries(name, holdings)]
    told = [(step, result) for step, result in entries if result is not None]
    if not told:
        return None
    (first, found), *_ = told
    sharing = entries if was_there else told
    holders = {step.claim_uid for step, _ in sharing if step.value == first.value}
    return Effect(
        kind=kind_of(type(first)),
        gpu_uuid=first.gpu_uuid,
        found={part: int(value) for part, value in found.items()},
        value=first.value,
        holders=tuple(sorted(holders)),
        boot_id="",
        driver_load="",
    )


def _entries(
    name: str, holdings: Iterable[Holding]
) -> Iterator[tuple[SharedStep, dict[str, str] | None]]:
    for holding in holdings:
        for entry in holding.steps:
            if isinstance(entry.step, SharedStep) and name_of(entry.step) == name:
                yield entry.step, entry.result


def name_of(step: SharedStep) -> str:
    """Of the effect that the step takes."""
    return f"{kind_of(type(step))}.{step.gpu_uuid}"


def applied_earlier(step: AnyStep) -> StepEntry:
    """For the record of a claim that was prepared, and it is lost what was found then: the driver's
    defaults are assumed. As long as the effect's own file tells it, that counts."""
    if isinstance(step, SharedStep):
        return StepEntry(step, dict.fromkeys(step.value, "0"))
    return StepEntry(step)
