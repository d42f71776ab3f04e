"""What the agent does besides answering the kubelet: each duty a name and an endless errand.

A duty in role is done by one agent of the node at a time: two agents overlap in an update, and two
that both write slices, sweep or reconcile would undo each other's work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable


@dataclass(frozen=True, slots=True)
class Duty:
    """`work` may return when it is done; it is called anew each time the duty begins.

    It has to bear being cancelled at any await. What it raises ends the agent.
    """

    name: str
    work: Callable[[], Coroutine[object, object, None]]
    in_role: bool = False


async def do_all(duties: Iterable[Duty]) -> None:
    """Until all have returned; when cancelled, all of them have ended before this does."""
    async with asyncio.TaskGroup() as group:
        for duty in duties:
            group.create_task(duty.work(), name=duty.name)
