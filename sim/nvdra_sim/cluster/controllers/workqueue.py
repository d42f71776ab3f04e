"""Keys to look at: each once however often it changed, one at a time, again after a failure."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nvdra_kube.informer import Key

_log = structlog.get_logger(__name__)

_FIRST_RETRY_S: Final = 0.02
_LAST_RETRY_S: Final = 5.0


class WorkQueue:
    """Calls `reconcile(key)` for keys that were added, in order. `run` belongs to a task.

    A key added while it is being looked at is looked at again. What `reconcile` raises is logged
    and the key comes back after a growing delay.
    """

    def __init__(self, name: str, reconcile: Callable[[Key], Awaitable[None]]) -> None:
        self.name = name
        self._reconcile = reconcile
        self._keys: dict[Key, None] = {}
        self._filled = asyncio.Event()
        self._failures: dict[Key, Backoff] = {}

    def __repr__(self) -> str:
        return f"<WorkQueue {self.name}, {len(self._keys)} keys>"

    def add(self, key: Key) -> None:
        self._keys[key] = None
        self._filled.set()

    def add_after(self, key: Key, *, delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self.add, key)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._filled.wait()
            while self._keys:
                key = next(iter(self._keys))
                del self._keys[key]
                await self._work(key)
            self._filled.clear()

    async def _work(self, key: Key) -> None:
        try:
            await self._reconcile(key)
        except Exception as error:
            self._retry(key, error)
        else:
            self._failures.pop(key, None)

    def _retry(self, key: Key, error: Exception) -> None:
        backoff = self._failures.setdefault(
            key, Backoff(first_s=_FIRST_RETRY_S, limit_s=_LAST_RETRY_S)
        )
        delay_s = backoff.failed()
        context = {"controller": self.name, "object": "/".join(filter(None, key))}
        if isinstance(error, Conflict | NotFound):
            _log.debug("object changed meanwhile", **context, error=str(error))
        elif isinstance(error, ApiError):
            _log.warning("reconcile failed, will retry", **context, error=str(error))
        else:
            _log.error("reconcile failed, will retry", **context, exc_info=error)
        self.add_after(key, delay_s=delay_s)
