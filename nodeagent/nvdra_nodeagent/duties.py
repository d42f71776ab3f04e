"""What the agent does besides answering the kubelet: each duty a name and an endless errand.

A duty in role is done by one agent of the node at a time: two agents overlap in an update, and two
that both write slices, sweep or reconcile would undo each other's work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable


@dataclass(slots=True)
class Pulse:
    """Since when a duty is done, on the loop's clock; None while it is not."""

    began_s: float | None = None


@dataclass(frozen=True, slots=True)
class Duty:
    """`work` may return when it is done; it is called anew each time the duty begins.

    It has to bear being cancelled at any await. What it raises ends the agent. Where `last_turn_s`
    is given, it says when the work last came round, on the loop's clock: at least every
    `patience_s` seconds, however little there is to do.
    """

    name: str
    work: Callable[[], Coroutine[object, object, None]]
    in_role: bool = False
    last_turn_s: Callable[[], float] | None = None
    patience_s: float = 600.0
    pulse: Pulse = field(default_factory=Pulse, compare=False)

    def still_s(self, *, now_s: float) -> float:
        """For how long the work has not come round; 0 while it is not done, or nobody can tell."""
        if self.pulse.began_s is None or self.last_turn_s is None:
            return 0.0
        return now_s - max(self.pulse.began_s, self.last_turn_s())


async def do_all(duties: Iterable[Duty]) -> None:
    """Until all have returned; when cancelled, all of them have ended before this does."""
    async with asyncio.TaskGroup() as group:
        for duty in duties:
            group.create_task(_do(duty), name=duty.name)


def standing_still(duties: Iterable[Duty], *, now_s: float) -> str:
    """The duties that do not come round any more, in words; "" when all do."""
    return "; ".join(
        f"{duty.name} has stood still for {still_s:.0f} s"
        for duty in duties
        if (still_s := duty.still_s(now_s=now_s)) > duty.patience_s
    )


async def _do(duty: Duty) -> None:
    duty.pulse.began_s = asyncio.get_running_loop().time()
    try:
        await duty.work()
    finally:
        duty.pulse.began_s = None
