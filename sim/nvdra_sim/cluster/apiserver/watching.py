"""One watch: changes after a revision, seen through a selector, with bookmarks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nvdra_kube.errors import ServerError
from nvdra_sim.cluster.apiserver.refusals import bad_request
from nvdra_sim.cluster.apiserver.selectors import Selector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from nvdra_sim.cluster.apiserver.catalog import ResourceType
    from nvdra_sim.cluster.apiserver.history import Change, Stored
    from nvdra_sim.cluster.apiserver.store import ClusterStore


@dataclass(frozen=True, slots=True)
class Line:
    """A watch line: an object with what happened to it, or the revision of a bookmark.

    `ends_initial` marks the bookmark after which changes follow the present objects.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    what: Stored | int
    ends_initial: bool = False


BOOKMARK_PERIOD_S = 60.0


def parse_revision(text: str, store: ClusterStore) -> int:
    """A client's resource version; one from the future is refused as the server does."""
    if not text:
        return 0
    if not text.isdecimal():
        raise bad_request(f"Invalid value: {text!r}: resourceVersion must be a number")
    revision = int(text)
    if revision > store.revision:
        raise ServerError(
            f"Too large resource version: {revision}, current: {store.revision}",
            status=504,
            reason="Timeout",
            retry_after_s=1.0,
        )
    return revision


async def watch(
    store: ClusterStore,
    kind: ResourceType,
    *,
    resource_version: str,
    namespace: str = "",
    selector: Selector | None = None,
    timeout_s: float,
    bookmarks: bool = True,
    initial_events: bool = False,
) -> AsyncIterator[Line]:
    """Lines until `timeout_s` has passed; raises `Gone` when history was lost.

    Without a resource version (or with "0") the present objects come first, as ADDED.
    """
    selector = selector or Selector()
    history = store.history(kind)
    position = parse_revision(resource_version, store)
    if initial_events or resource_version in ("", "0"):
        position = store.revision
        for stored in store.list(kind, selector, namespace=namespace):
            yield Line("ADDED", stored)
        if initial_events:
            yield Line("BOOKMARK", position, ends_initial=True)
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    with history.wakeups() as changed:
        while True:
            changed.clear()
            for change in history.since(position):
                position = change.revision
                for line in _seen(change, selector, namespace):
                    yield line
            if changed.is_set():
                continue
            left_s = end - loop.time()
            if left_s > 0 and await _wait(changed, min(left_s, BOOKMARK_PERIOD_S)):
                continue
            if bookmarks and not changed.is_set():
                position = store.revision
                yield Line("BOOKMARK", position)
            # Not asked of the clock again: a timer may ring a trace before its time.
            if left_s <= BOOKMARK_PERIOD_S:
                return


async def _wait(event: asyncio.Event, timeout_s: float) -> bool:
    # Not wait_for: before 3.12 it forgets a cancellation that comes together with the event.
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _seen(change: Change, selector: Selector, namespace: str) -> Iterator[Line]:
    """How a change looks to a watcher who sees only part of the objects."""
    if namespace and change.key[0] != namespace:
        return
    if not selector:
        yield Line(change.type, change.new)
        return
    before = change.old is not None and selector.matches(change.old.body)
    after = change.type != "DELETED" and selector.matches(change.new.body)
    if after:
        yield Line("MODIFIED" if before else "ADDED", change.new)
    elif before:
        yield Line("DELETED", change.new)
