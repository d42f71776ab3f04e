"""Cancels a task at a chosen suspension: a test can go through all awaits of a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Suspensions:
    """`seen` counts how often tasks with the name were suspended; at number `at` the task is
    cancelled, as soon as the loop has a turn for it."""

    def __init__(self, name: str, *, at: int) -> None:
        self._name = name
        self._at = at
        self.seen = 0

    @property
    def cancelled(self) -> bool:
        return self.seen >= self._at

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tasks that the running loop gets meanwhile are stepped through."""
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(self._task)  # type: ignore[arg-type]  # typed for one Python only
        try:
            yield
        finally:
            loop.set_task_factory(before)

    def _task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        def suspended() -> None:
            if task.get_name() == self._name:
                self.seen += 1
                if self.seen == self._at:
                    loop.call_soon(task.cancel)

        task: asyncio.Task[Any] = asyncio.Task(_Stepped(coroutine, suspended), loop=loop, **more)
        return task


class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each of its suspensions."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], suspended: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._suspended = suspended

    def send(self, value: Any) -> Any:
        awaited = self._coroutine.send(value)
        self._suspended()
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._coroutine.throw(*error)
        self._suspended()
        return awaited

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()
