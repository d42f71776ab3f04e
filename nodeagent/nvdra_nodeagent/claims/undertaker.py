"""Finishes what could not be undone when its claim was unprepared, however long it takes.

The kubelet has been told that these claims are gone and will not ask again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_nodeagent.errors import AgentError, Retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from collections.abc import Set as AbstractSet

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.observer import ClaimObserver
    from nvdra_nodeagent.claims.sweeper import ThreadHop

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S: Final = 1.0
_LAST_PAUSE_S: Final = 60.0
_SHORTEST_PAUSE_S: Final = 0.05
"""A loop may wake a timer a trace before its time: then nothing is due yet."""
_LOOK_INTERVAL_S: Final = 10.0
"""Another agent, or one before this, may have left something and tells nobody."""


class Undertaker:
    """`run` belongs to a task of its owner; `call` may be made at any time."""

    def __init__(
        self,
        unfinished: Callable[[], AbstractSet[str]],
        *,
        run: ThreadHop,
        is_busy: Callable[[str], bool],
        finish: Callable[[str], Awaitable[ClaimRef | None]],
        observer: ClaimObserver,
    ) -> None:
        """`unfinished` lists the claims, blocking. `finish` answers the claim that was finished,
        None when nothing was left of it, and raises `AgentError` when it could not be."""
        self._unfinished = unfinished
        self._run = run
        self._is_busy = is_busy
        self._finish = finish
        self._observer = observer
        self._called = asyncio.Event()
        self._backoffs: dict[str, Backoff] = {}
        self._next: dict[str, float] = {}
        self.last_turn_s = 0.0
        """When `run` last came round, on the loop's clock."""
        self.left = 0
        """Claims that had something left at the last look."""

    def call(self, ref: ClaimRef, error: AgentError) -> None:
        """Undoing something of the claim was put off."""
        log.warning("undoing put off", claim=ref.uid, error=str(error))
        self._observer.tombstone(ref, error=error)
        self._called.set()

    async def run(self) -> None:
        """Eternal: at once, at each call, and when a pause is over."""
        while True:
            self.last_turn_s = asyncio.get_running_loop().time()
            try:
                pause_s = await self.look()
            except Exception:  # the root of this task: the next look may do better
                log.exception("finishing claims crashed")
                pause_s = _LOOK_INTERVAL_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._called.wait()
            self._called.clear()

    async def look(self) -> float:
        """Try what is due. Answers after how many seconds something will be due again."""
        loop = asyncio.get_running_loop()
        try:
            uids = await self._run(self._unfinished)
        except AgentError as error:
            log.warning("unfinished claims not listed", error=str(error))
            return _LOOK_INTERVAL_S
        self.left = len(uids)
        for uid in self._next.keys() - uids:
            self._forget(uid)
        due = [uid for uid in sorted(uids) if self._next.get(uid, 0.0) <= loop.time()]
        # At once: those of a GPU that hangs would hold up those of all others.
        async with asyncio.TaskGroup() as group:
            for uid in due:
                if not self._is_busy(uid):
                    group.create_task(self._try(uid), name=f"try to finish {uid}")
        return min([_LOOK_INTERVAL_S, *(_pause_s(at - loop.time()) for at in self._next.values())])

    async def _try(self, uid: str) -> None:
        try:
            finished = await self._finish(uid)
        except AgentError as error:
            self._put_off(uid, error)
            return
        except Exception as error:  # one claim that cannot be finished keeps no other
            log.exception("finishing a claim crashed", claim=uid)
            self._put_off(uid, Retryable("InternalError", f"unexpected {type(error).__name__}"))
            return
        self._forget(uid)
        if finished:
            log.info("undone what was put off", claim=uid)
            self._observer.tombstone(finished, error=None)

    def _put_off(self, uid: str, error: AgentError) -> None:
        fresh = Backoff(first_s=_FIRST_PAUSE_S, limit_s=_LAST_PAUSE_S)
        pause_s = self._backoffs.setdefault(uid, fresh).failed()
        self._next[uid] = asyncio.get_running_loop().time() + pause_s
        log.warning("still not undone", claim=uid, error=str(error), retry_in_s=pause_s)

    def _forget(self, uid: str) -> None:
        self._backoffs.pop(uid, None)
        self._next.pop(uid, None)


def _pause_s(left_s: float) -> float:
    """What is overdue is being worked on by somebody else."""
    return max(_SHORTEST_PAUSE_S, left_s) if left_s > 0 else _FIRST_PAUSE_S
