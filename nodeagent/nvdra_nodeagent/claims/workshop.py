"""Tasks that do the work on claims: one at a time for a claim, and none that a caller can break."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.observer import Operation

T = TypeVar("T")
Upkeep: TypeAlias = Literal["reconcile", "finish", "verify"]
"""Work on a claim that nobody asked for. Whoever asks for something waits for it."""
_UPKEEP: Final = get_args(Upkeep)

DEFAULT_THREADS: Final = 32
"""Made when they are needed. A GPU whose program hangs keeps one busy, and no more than one."""


class Threads:
    """The worker threads of claims: every claim in flight may wait for its own disk write."""

    def __init__(self, count: int = DEFAULT_THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="claims")

    async def run(
        self, work: Callable[[], T], *, on_cancel: Callable[[], None] = lambda: None
    ) -> T:
        """Run `work` in a thread, in the caller's context.

        A cancelled caller goes on only when the thread has ended: whoever holds locks for the work
        must not give them up earlier. `on_cancel` may tell the work to come to its end.
        """
        context = copy_context()  # log lines of the thread are about the same claim
        future = asyncio.get_running_loop().run_in_executor(self._pool, context.run, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            on_cancel()
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue
            future.exception()  # told to nobody: the caller is gone
            raise

    def close(self) -> None:
        """Wait for running work and end the threads."""
        self._pool.shutdown()


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    operation: Operation | Upkeep
    ref: ClaimRef
    task: asyncio.Task[T]


class Workshop(Generic[T]):
    """The running work by claim UID.

    A repeated order joins the work that is under way; another operation on the same claim waits for
    it. An unprepare first stops a prepare that it overtakes: the pod is gone, nobody waits for it.
    """

    def __init__(self) -> None:
        self._latest: dict[str, _Job[T]] = {}
        self._tasks: dict[asyncio.Task[T], float] = {}  # and when it was ordered

    def order(
        self,
        operation: Operation | Upkeep,
        ref: ClaimRef,
        work: Callable[[ClaimRef], Coroutine[Any, Any, T]],
    ) -> asyncio.Task[T]:
        """The task that does it. Cancelling whoever awaits it does not stop it if the caller uses
        `asyncio.wait`; the task itself ends as cancelled only when it was overtaken."""
        previous = self._latest.get(ref.uid)
        if previous and (previous.operation, previous.ref) == (operation, ref):
            return previous.task
        if previous and previous.operation == "prepare" and operation not in _UPKEEP:
            previous.task.cancel()
        task = asyncio.create_task(
            _after(previous.task if previous else None, ref, work), name=f"{operation} {ref}"
        )
        self._latest[ref.uid] = _Job(operation, ref, task)
        self._tasks[task] = asyncio.get_running_loop().time()
        task.add_done_callback(lambda done: self._done(ref.uid, done))
        return task

    def is_busy(self, uid: str) -> bool:
        return uid in self._latest

    def oldest(self, *, now_s: float) -> tuple[str, float]:
        """Name and age of the work that was ordered first; ("", 0) when nothing is under way."""
        return next(iter(self.under_way(now_s=now_s)), ("", 0.0))

    def under_way(self, *, now_s: float) -> list[tuple[str, float]]:
        """Names and ages of all work, the oldest first."""
        return [(task.get_name(), now_s - since_s) for task, since_s in self._tasks.items()]

    async def drain(self, *, timeout_s: float) -> tuple[str, ...]:
        """Return when nothing runs any more; the names of what had to be stopped for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ended()
        late = tuple(self._tasks)
        for task in late:
            task.cancel()
        await self._ended()
        return tuple(task.get_name() for task in late)

    async def _ended(self) -> None:
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _done(self, uid: str, task: asyncio.Task[T]) -> None:
        self._tasks.pop(task, None)
        latest = self._latest.get(uid)
        if latest and latest.task is task:
            del self._latest[uid]


async def _after(
    previous: asyncio.Task[T] | None,
    ref: ClaimRef,
    work: Callable[[ClaimRef], Coroutine[Any, Any, T]],
) -> T:
    if previous:
        await asyncio.wait([previous])
    return await work(ref)
