"""A local, always current copy of some objects of the API: list, diff-replace, watch, again.

Differs from a plain watch in what it promises: a delete that happened while no watch was open is
noticed, no failure ends it, and its owner can ask whether it is synced and alive.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, Gone
from nvdra_kube.store import Change, Key, ObjectStore, as_is

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from nvdra_kube.api import Body, KubeApi, Resource, WatchEvent

__all__ = ["Change", "Informer", "Key"]

_log = structlog.get_logger(__name__)

# The server ends each watch after this time; a stream that went deaf is replaced by then.
_WATCH_LIMIT_S: Final = (240.0, 300.0)
# A watch that lives shorter than this and brings nothing is a failure, not a success.
_SETTLED_S: Final = 1.0
# Failures before a watch that lived so long are over; few requests take as long to fail.
_LIVED_S: Final = 10.0


class Informer:
    """Mirrors the objects of one resource. `run` belongs to a task of the owner.

    Callbacks are synchronous and run in the loop, after the store was updated; what they raise is
    logged. Objects are shared: nobody edits them.
    """

    def __init__(
        self,
        api: KubeApi,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        keep: Callable[[Body], Body] = as_is,
    ) -> None:
        """`keep` trims an object before it is stored; it must leave `metadata` identity alone."""
        self._api = api
        self._resource = resource
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._store = ObjectStore(resource, keep=keep)
        self._subscribers: list[Callable[[Change], None]] = []
        self._synced = asyncio.Event()
        self._backoff = Backoff()
        # Resource version to watch from; empty: a list is due.
        self._version = ""
        self._opened_s = 0.0
        self._worked = False
        self._last_activity_s = 0.0
        self._last_failure_s = 0.0

    def __repr__(self) -> str:
        state = "synced" if self.has_synced else "not synced"
        return f"<Informer {self._resource.plural} {state}, {len(self.items)} objects>"

    @property
    def items(self) -> Mapping[Key, Body]:
        """The objects known now: a live, read-only view."""
        return self._store.objects

    @property
    def has_synced(self) -> bool:
        """Whether the first list has arrived."""
        return self._synced.is_set()

    @property
    def last_activity_s(self) -> float:
        """When the API last answered (list, event, bookmark, end of a watch): the loop's clock.

        A live server sends a bookmark about each minute.
        """
        return self._last_activity_s

    @property
    def last_turn_s(self) -> float:
        """When the API last answered or was found not to: the loop's clock. A watch that says
        nothing is broken off by the session, so `run` turns as long as it lives."""
        return max(self._last_activity_s, self._last_failure_s)

    async def wait_synced(self) -> None:
        """Return once the first list has arrived."""
        await self._synced.wait()

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back on each later change; what is known already is in `items`.

        Returns a function that ends the subscription.
        """
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    async def run(self) -> None:
        """Keep the copy current until cancelled."""
        while True:
            try:
                await self._follow()
            except Exception as error:
                await self._recover(error)

    async def _follow(self) -> None:
        """One list if due, and one watch up to its end."""
        if not self._version:
            await self._list()
        self._opened_s, self._worked = self._now(), False
        try:
            async with self._stream() as stream:
                async for event in stream:
                    self._take(event)
        finally:
            # A quiet watch brings nothing, not even a bookmark in its first minute.
            if self._now() - self._opened_s >= _LIVED_S:
                self._backoff.succeeded()
        if not self._watch_worked():
            raise ApiError(
                f"the watch on {self._resource.plural} ended at once and brought nothing"
            )
        self._touch()

    async def _list(self) -> None:
        body = await self._api.list(
            self._resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        changes = self._store.replace(body.get("items") or [])
        self._version = body["metadata"]["resourceVersion"]
        self._touch()
        self._notify(changes)
        self._synced.set()

    def _take(self, event: WatchEvent) -> None:
        changes = self._store.apply(event)
        self._version = event.object["metadata"]["resourceVersion"]
        self._worked = self._worked or bool(changes)
        if self._watch_worked():
            self._backoff.succeeded()
        self._touch()
        self._notify(changes)

    def _watch_worked(self) -> bool:
        """Whether the current watch brought something, or at least lasted."""
        return self._worked or self._now() - self._opened_s >= _SETTLED_S

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        stream = self._api.watch(
            self._resource,
            resource_version=self._version,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_s=random.uniform(*_WATCH_LIMIT_S),
        )
        try:
            yield stream
        finally:
            # An abandoned generator would hold its connection until the garbage collector comes.
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def _recover(self, error: Exception) -> None:
        self._last_failure_s = self._now()
        expected = isinstance(error, ApiError)
        # A watch that broke before it did anything is not resumed: where it started may be the
        # reason (a store restored from a backup, a version that the server never had).
        if not expected or isinstance(error, Gone) or not self._watch_worked():
            self._version = ""
        wish_s = error.retry_after_s if isinstance(error, ApiError) else None
        delay_s = self._backoff.failed(at_least_s=wish_s or 0.0)
        report = _log.info if isinstance(error, Gone) else _log.warning
        report(
            "list or watch failed",
            resource=self._resource.plural,
            error=str(error) or type(error).__name__,
            failures=self._backoff.failures,
            retry_in_s=round(delay_s, 1),
            next="watch" if self._version else "list",
            exc_info=None if expected else error,
        )
        await asyncio.sleep(delay_s)

    def _notify(self, changes: Iterable[Change]) -> None:
        for change in changes:
            for callback in tuple(self._subscribers):
                try:
                    callback(change)
                except Exception as error:
                    _log.error(
                        "informer callback failed",
                        resource=self._resource.plural,
                        object="/".join(change.key),
                        exc_info=error,
                    )

    def _touch(self) -> None:
        self._last_activity_s = self._now()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
