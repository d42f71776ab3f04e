"""Where the blocking work on claims is done: in threads, with the claim and its GPUs locked."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from nvdra_nodeagent.claims.executor import MoreGpus
from nvdra_nodeagent.claims.locks import ClaimLocks, LockFile
from nvdra_nodeagent.claims.workshop import Threads, Workshop
from nvdra_nodeagent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef, PreparedDevice
    from nvdra_nodeagent.claims.observer import ClaimObserver, Operation
    from nvdra_nodeagent.claims.workshop import Upkeep

UPKEEP_PATIENCE_S: Final = 30.0
"""How long work that nobody asked for waits for locks."""

T = TypeVar("T")


def _ignored() -> None: ...


class Workplace:
    """Threads, locks, and the line of work of each claim."""

    def __init__(self, state_dir: Path, *, threads: int, observer: ClaimObserver) -> None:
        """:raises Retryable: the lock file in `state_dir` cannot be opened."""
        self._lock_file = LockFile(state_dir / "locks")
        self.locks = ClaimLocks(self._lock_file)
        self._threads = Threads(threads)
        self._observer = observer
        self._loop: asyncio.AbstractEventLoop | None = None
        self.work: Workshop[tuple[PreparedDevice, ...] | AgentError | None] = Workshop()

    def close(self) -> None:
        """End the threads and let go of the lock file; only when no work is left."""
        self._threads.close()
        self._lock_file.close()

    async def in_thread(
        self, work: Callable[[], T], *, on_cancel: Callable[[], None] = _ignored
    ) -> T:
        """As `Threads.run`."""
        self._loop = asyncio.get_running_loop()
        return await self._threads.run(work, on_cancel=on_cancel)

    def tell(self, news: Callable[[], None]) -> None:
        """Have `news` called in the loop. From a worker thread."""
        if self._loop:
            self._loop.call_soon_threadsafe(news)

    async def locked(
        self,
        operation: Operation,
        uid: str,
        work: Callable[[frozenset[str]], T],
        *,
        gpus: frozenset[str],
        deadline: float,
        on_cancel: Callable[[], None] = _ignored,
    ) -> T:
        """Run the blocking `work` in one hop, holding the claim's lock and those of its GPUs.

        `work` is told which GPUs these are and may ask for `MoreGpus`. `deadline` is for the locks,
        on the loop's clock.
        """
        asked = time.monotonic()
        async with self.locks.claim(uid, deadline=deadline):
            while True:
                async with self.locks.gpus(gpus, deadline=deadline):
                    self._observer.lock_waited(operation, wait_s=time.monotonic() - asked)
                    try:
                        return await self.in_thread(partial(work, gpus), on_cancel=on_cancel)
                    except MoreGpus as more:
                        gpus |= more.uuids

    async def in_line(
        self, upkeep: Upkeep, ref: ClaimRef, attempt: Callable[[float], Awaitable[T]]
    ) -> T | None:
        """Do work that nobody asked for in line with the kubelet's calls for the claim.

        `attempt` gets the deadline for its locks. None when the work joined other such work.

        :raises AgentError: as `attempt` does.
        """
        results: list[T] = []

        async def work(ref: ClaimRef) -> AgentError | None:
            structlog.contextvars.bind_contextvars(claim=ref.uid)
            deadline = asyncio.get_running_loop().time() + UPKEEP_PATIENCE_S
            try:
                results.append(await attempt(deadline))
            except AgentError as error:
                return error
            return None

        task = self.work.order(upkeep, ref, work)
        await asyncio.wait([task])
        outcome = task.result()
        if isinstance(outcome, AgentError):
            raise outcome
        return results[0] if results else None

    async def exclusively(
        self, ref: ClaimRef, work: Callable[[], None], *, gpus: frozenset[str]
    ) -> None:
        """Run blocking work in line, with the claim and these GPUs locked.

        :raises AgentError: from the work, or the locks were not to be had.
        """

        async def attempt(deadline: float) -> None:
            async with (
                self.locks.claim(ref.uid, deadline=deadline),
                self.locks.gpus(gpus, deadline=deadline),
            ):
                await self.in_thread(work)

        await self.in_line("reconcile", ref, attempt)
