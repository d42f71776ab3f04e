"""What happened to the objects of one resource type, for watches: a bounded log with a floor."""

from __future__ import annotations

import asyncio
import bisect
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nvdra_sim.cluster.apiserver.bodies import encode
from nvdra_sim.cluster.apiserver.refusals import gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nvdra_kube.api import Body

ChangeType: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED"]
ObjectKey: TypeAlias = tuple[str, str]
"""(namespace or "", name)"""


class Stored:
    """One state of one object. Nobody changes `body`; a write makes another `Stored`.

    `raw` is its JSON in a served version, encoded once and shared by all readers.
    """

    __slots__ = ("_raw", "body", "revision")

    def __init__(self, body: Body, revision: int) -> None:
        self.body = body
        self.revision = revision
        self._raw: dict[str, bytes] = {}

    def raw(self, version: str, convert: Callable[[Body], Body]) -> bytes:
        encoded = self._raw.get(version)
        if encoded is None:
            encoded = self._raw[version] = encode(convert(self.body))
        return encoded

    def __repr__(self) -> str:
        meta: dict[str, Any] = self.body.get("metadata", {})
        return f"<Stored {self.body.get('kind')} {meta.get('name')} rv={self.revision}>"


@dataclass(frozen=True, slots=True)
class Change:
    """A committed write. For DELETED `new` is the last state, carrying the deletion's revision."""

    revision: int
    type: ChangeType
    key: ObjectKey
    new: Stored
    old: Stored | None


class History:
    """Changes in order of revision; the oldest are forgotten once there are more than `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changes: list[Change] = []
        self._floor = 0
        self._waiting: set[asyncio.Event] = set()

    def append(self, change: Change) -> None:
        self._changes.append(change)
        # Trimming by the slice keeps appends cheap: at most one copy in `limit` writes.
        if len(self._changes) > 2 * self._limit:
            self._forget(len(self._changes) - self._limit)
        for waiting in self._waiting:
            waiting.set()

    def since(self, revision: int) -> list[Change]:
        """Changes after `revision`; raises `Gone` when some of them are forgotten."""
        if revision < self._floor:
            raise gone(f"too old resource version: {revision} ({self._floor})")
        start = bisect.bisect_right(self._changes, revision, key=lambda change: change.revision)
        return self._changes[start:]

    def compact(self, revision: int) -> None:
        """Forget everything up to `revision`: older watches get 410."""
        self._floor = max(self._floor, revision)
        self._changes = [change for change in self._changes if change.revision > revision]
        for waiting in self._waiting:
            waiting.set()

    @contextmanager
    def wakeups(self) -> Iterator[asyncio.Event]:
        """An event that is set at each change, for one watcher."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)

    def _forget(self, count: int) -> None:
        self._floor = self._changes[count - 1].revision
        del self._changes[:count]
