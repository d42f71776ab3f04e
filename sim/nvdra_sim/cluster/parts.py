"""The tasks that a cluster consists of: named, and none of them may end unnoticed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = structlog.get_logger(__name__)


class ClusterBroken(Exception):
    """A part of the cluster ended while it was in use; the text says which, and why."""


class Parts:
    """Eternal tasks with names. All end with the context, and it with the first that ends."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._owner: asyncio.Task[Any] | None = None
        self._ended: asyncio.Task[None] | None = None

    def start(self, name: str, run: Callable[[], Any]) -> None:
        task = asyncio.create_task(run(), name=name)
        task.add_done_callback(self._end)
        self._tasks[name] = task

    async def stop(self, names: Iterable[str]) -> None:
        """End these, and wait for their ends; the others go on."""
        tasks = [self._tasks.pop(name) for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        return self

    async def __aexit__(self, *_: object) -> None:
        """All at once: nothing of the cluster outlives it, so no order matters.

        Raises `ClusterBroken` in place of the cancellation that a part's end led to.
        """
        owner, self._owner = self._owner, None
        await self.stop(list(self._tasks))
        if owner is not None and self._ended is not None:
            owner.uncancel()
            cause = self._ended.exception()
            raise ClusterBroken(f"{self._ended.get_name()} ended: {_told(cause)}") from cause

    def _end(self, task: asyncio.Task[None]) -> None:
        """Without one of its parts a cluster would only stand still, and nobody know why."""
        if task.cancelled() or self._owner is None or self._ended is not None:
            return
        log.error("a part of the cluster ended", part=task.get_name(), exc_info=task.exception())
        self._ended = task
        self._owner.cancel()


def _told(cause: BaseException | None) -> str:
    """The first cause: groups of exceptions say nothing themselves."""
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return f"{type(cause).__name__}: {cause}" if cause else "without an error"
