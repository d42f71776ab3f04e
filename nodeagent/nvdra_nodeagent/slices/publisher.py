"""Keeps the slices of one pool in the API as desired, whoever changes or wipes them.

Level-triggered: each round compares what should be with what is and writes the difference. Events
of the watch only say when to look. Before anything is written the pool is listed afresh, so a
watch that lags can cost a read, but never a second copy of a slice.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, Conflict, Invalid, NotFound
from nvdra_kube.informer import Informer
from nvdra_nodeagent.slices.body import API_VERSIONS
from nvdra_nodeagent.slices.changes import Accepted, Pool, plan_changes
from nvdra_nodeagent.slices.errors import (
    FieldsDropped,
    PublishFailed,
    SlicesNotServed,
    SlicesRefused,
)
from nvdra_nodeagent.slices.store import SliceStore, WriteCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.informer import Change
    from nvdra_nodeagent.errors import AgentError
    from nvdra_nodeagent.slices.changes import Changes
    from nvdra_nodeagent.slices.model import SliceContent

_log = structlog.get_logger(__name__)

# Somebody else may win this often in one round before it counts as a failure.
_ATTEMPTS: Final = 4


class Publisher:
    """One pool, named like the node. `run` belongs to a task of the owner.

    `writes` counts what the API has taken, `failures` the rounds that failed. `last_error` is why
    the pool is not as desired: a `PublishFailed`, `SlicesNotServed`, `SlicesRefused` or
    `FieldsDropped`. Of the last two `on_degraded` is told, once for each desire, so that its owner
    can desire something that this server takes.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        driver: str,
        node: str,
        on_degraded: Callable[[FieldsDropped | SlicesRefused], None] | None = None,
        debounce_s: float = 0.01,
        recheck_s: float = 5.0,
        backoff: Backoff | None = None,
    ) -> None:
        """`debounce_s` lets a burst of events end; `recheck_s` bounds trust in a lagging watch."""
        self.writes = WriteCounts()
        self.failures = 0
        self.last_error: AgentError | None = None
        self._api = api
        self._pool = Pool(driver=driver, node=node, name=node)
        self._on_degraded = on_degraded
        self._debounce_s = debounce_s
        self._recheck_s = recheck_s
        self._backoff = backoff or Backoff()
        self._desired: tuple[SliceContent, ...] | None = None
        self._attempted: tuple[SliceContent, ...] | None = None
        self._accepted = Accepted()
        self._dropped: list[str] = []
        self._told = ""
        self._failed_s = 0.0
        self._informer: Informer | None = None
        self._fresh: list[Body] | None = None
        self._wake = asyncio.Event()
        self._redesired = asyncio.Event()
        self._published = asyncio.Event()

    def __repr__(self) -> str:
        state = "published" if self.is_published else self.last_error or "not published"
        return f"<Publisher {self._pool.driver} on {self._pool.node}: {state}>"

    @property
    def is_published(self) -> bool:
        """Whether the API was last seen to hold what is desired."""
        return self._published.is_set()

    @property
    def last_turn_s(self) -> float:
        """When it last heard from the API server or noticed that it cannot: the loop's clock, 0
        before the first. An API server that is away does not stop it from turning."""
        return max(self._failed_s, self._informer.last_turn_s if self._informer else 0.0)

    def desire(self, slices: Iterable[SliceContent]) -> None:
        """Make these the contents of the pool, in this order; at least one slice.

        May be called at any time, also before `run`; only the latest call counts.
        """
        desired = tuple(slices)
        if not desired:
            raise ValueError("a pool has at least one slice; an empty one says the driver lives")
        if desired == self._desired:
            return
        self._desired = desired
        self._accepted.clear()
        self._dropped = []
        self._told = ""
        self._published.clear()
        self._redesired.set()
        self._wake.set()

    async def wait_published(self) -> None:
        """Return once the API holds what is desired at that time."""
        await self._published.wait()

    async def run(self) -> None:
        """Keep the pool true until cancelled. Slices stay: the node's deletion takes them along."""
        while True:
            store = await self._open()
            async with asyncio.TaskGroup() as group:
                informer = Informer(self._api, store.resource, field_selector=store.selector)
                informer.subscribe(partial(self._heed, store))
                self._informer = informer
                name = f"watch slices of {self._pool.driver}"
                watching = group.create_task(informer.run(), name=name)
                proving = group.create_task(self._wake_when_synced(informer), name=f"first {name}")
                await self._keep_true(store, informer)
                watching.cancel()
                proving.cancel()

    async def _wake_when_synced(self, informer: Informer) -> None:
        """What went between the list of `_open` and the watch's own was never there to the watch,
        which therefore tells nobody."""
        await informer.wait_synced()
        if self._fresh and _revisions(self._fresh) != _revisions(informer.items.values()):
            self._fresh = None
        self._wake.set()

    async def _open(self) -> SliceStore:
        """The pool in the best version that the server has; a round is due at once."""
        while True:
            self._attempted = self._desired
            for version in API_VERSIONS:
                store = self._store(version)
                try:
                    self._fresh = await store.list()
                except SlicesNotServed:
                    continue
                except ApiError as error:
                    await self._recover(error)
                    break
                self._wake.set()
                return store
            else:
                await self._recover(SlicesNotServed(API_VERSIONS))

    def _store(self, version: str) -> SliceStore:
        return SliceStore(
            self._api,
            pool=self._pool,
            version=version,
            counts=self.writes,
            accepted=self._accepted,
            on_dropped=self._dropped_more,
        )

    async def _keep_true(self, store: SliceStore, informer: Informer) -> None:
        """Rounds of comparing and writing; returns when the version is no longer served."""
        while True:
            await self._woken(store)
            try:
                await self._sync(store, informer)
            except SlicesNotServed as error:
                _log.warning("resource slices no longer served", version=store.version)
                self.last_error = error
                return
            except ApiError as error:
                await self._recover(error)
            else:
                self._backoff.succeeded()

    async def _woken(self, store: SliceStore) -> None:
        limit_s = self._recheck_s if store.echoes.pending else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._wake.wait()
        await asyncio.sleep(self._debounce_s)
        self._wake.clear()

    async def _sync(self, store: SliceStore, informer: Informer) -> None:
        desired = self._attempted = self._desired
        if desired is None:
            self._fresh = None
            return
        caught_up = informer.has_synced and not store.echoes.pending
        if not caught_up or self._changes(desired, informer.items.values(), store):
            await self._write(desired, store, informer)
        if desired is self._desired:
            self._published.set()
            self.last_error = self._dropped_error()

    async def _write(
        self, desired: Sequence[SliceContent], store: SliceStore, informer: Informer
    ) -> None:
        """Compare with a fresh list and write what differs; again when somebody was faster."""
        for attempt in range(1, _ATTEMPTS + 1):
            stored = await self._stored(store, informer)
            changes = self._changes(desired, stored, store)
            if not changes:
                return
            self._published.clear()
            try:
                await store.apply(changes, seen=informer.items)
            except (Conflict, NotFound) as error:
                _log.info(
                    "resource slice changed meanwhile", pool=self._pool.name, error=str(error)
                )
                if attempt == _ATTEMPTS:
                    raise
            else:
                self._report(changes)
                return

    async def _stored(self, store: SliceStore, informer: Informer) -> list[Body]:
        """The slices now; the list that proved the version is used once."""
        # Good for the round that follows at once, not for one that waited for a desire.
        stored, self._fresh = self._fresh, None
        if stored is None:
            stored = await store.list()
        store.echoes.settle(stored, informer.items)
        return stored

    def _changes(
        self, desired: Sequence[SliceContent], stored: Iterable[Body], store: SliceStore
    ) -> Changes:
        return plan_changes(
            desired, stored, pool=self._pool, version=store.version, accepted=self._accepted
        )

    def _heed(self, store: SliceStore, change: Change) -> None:
        self._fresh = None
        if not store.echoes.hear(change):
            self._wake.set()

    def _dropped_more(self, fields: list[str]) -> None:
        self._dropped += [field for field in fields if field not in self._dropped]

    def _dropped_error(self) -> FieldsDropped | None:
        return (
            FieldsDropped(self._pool.name, fields=tuple(self._dropped)) if self._dropped else None
        )

    def _report(self, changes: Changes) -> None:
        _log.info(
            "resource slices published",
            pool=self._pool.name,
            driver=self._pool.driver,
            generation=changes.generation,
            written=len(changes.writes),
            deleted=len(changes.deletions),
        )
        if error := self._dropped_error():
            self._degraded(error)

    def _degraded(self, error: FieldsDropped | SlicesRefused) -> None:
        """Tell of it once; the owner's answer may be another desire."""
        repeated, self._told = str(error) == self._told, str(error)
        if repeated:
            return
        self.last_error = error
        _log.error("resource slices degraded", pool=self._pool.name, error=str(error))
        if self._on_degraded is not None:
            self._on_degraded(error)

    def _failure(self, error: ApiError) -> PublishFailed | SlicesRefused:
        failure: PublishFailed | SlicesRefused
        if isinstance(error, Invalid):
            failure = SlicesRefused(self._pool.name, cause=error)
            self._degraded(failure)
        else:
            failure = PublishFailed(self._pool.name, cause=error)
        failure.__cause__ = error
        return failure

    async def _recover(self, error: ApiError | SlicesNotServed) -> None:
        """Wait before the next attempt; a desire newer than the failed attempt ends the wait."""
        self.last_error = error if isinstance(error, SlicesNotServed) else self._failure(error)
        self.failures += 1
        self._failed_s = asyncio.get_running_loop().time()
        wish_s = error.retry_after_s if isinstance(error, ApiError) else None
        delay_s = self._backoff.failed(at_least_s=wish_s or 0.0)
        _log.warning(
            "resource slices not published",
            pool=self._pool.name,
            error=str(self.last_error),
            retry_in_s=round(delay_s, 1),
        )
        if self._desired is self._attempted:
            self._redesired.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._redesired.wait()
        self._wake.set()


def _revisions(slices: Iterable[Body]) -> set[tuple[str, str]]:
    found = (body["metadata"] for body in slices)
    return {(metadata["uid"], metadata["resourceVersion"]) for metadata in found}
