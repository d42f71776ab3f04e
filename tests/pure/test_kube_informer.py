"""The informer against a scripted API, in fake time."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from nvdra_kube.errors import Forbidden, Gone, ServerError, TooManyRequests, Unreachable
from nvdra_kube.informer import Change, Informer
from nvdra_kube.resources import PODS
from nvdra_testing.kube_script import (
    Listed,
    ScriptedKube,
    Watched,
    added,
    an_object,
    bookmark,
    deleted,
    listed,
    modified,
    scripted,
    watched,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Script: TypeAlias = tuple[Listed | Watched, ...]

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def playing(
    *turns: Listed | Watched, **kwargs: Any
) -> AsyncIterator[tuple[Informer, ScriptedKube, list[Change]]]:
    """An informer that has just played the whole script."""
    api = scripted(*turns)
    informer = Informer(api, PODS, **kwargs)
    changes: list[Change] = []
    informer.subscribe(changes.append)
    task = asyncio.create_task(informer.run(), name="informer")
    try:
        await api.finished()
        yield informer, api, changes
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert api.open_watches == 0


def told(changes: list[Change]) -> list[str]:
    return [f"{change.type} {change.key[1]}" for change in changes]


def names(informer: Informer) -> set[str]:
    return {name for _, name in informer.items}


async def test_watches_from_the_version_of_the_list() -> None:
    async with playing(listed(an_object("a"), version="7")) as (informer, api, changes):
        assert api.verbs == ["list", "watch 7"]
        assert told(changes) == ["added a"]
        assert informer.has_synced


async def test_events_change_the_items() -> None:
    script = (
        listed(an_object("a")),
        watched(added("b", version="2"), modified("a", version="3"), deleted("b", version="4")),
    )
    async with playing(*script) as (informer, _, changes):
        assert told(changes) == ["added a", "added b", "modified a", "deleted b"]
        assert names(informer) == {"a"}


async def test_a_change_carries_the_object_before() -> None:
    script = (listed(an_object("a", spec=1)), watched(modified("a", version="2", spec=2)))
    async with playing(*script) as (_, _, changes):
        assert changes[-1].object["spec"] == 2
        assert changes[-1].old is not None
        assert changes[-1].old["spec"] == 1


async def test_a_watch_that_ends_is_resumed_from_the_last_event() -> None:
    script = (listed(), watched(added("a", version="9")), watched(lasts_s=60))
    async with playing(*script) as (_, api, _):
        assert api.verbs == ["list", "watch 1", "watch 9", "watch 9"]


async def test_a_bookmark_moves_the_version_on() -> None:
    script = (listed(), watched(bookmark("50"), lasts_s=60))
    async with playing(*script) as (informer, api, changes):
        assert api.verbs[-1] == "watch 50"
        assert changes == []
        assert not informer.items


async def test_gone_lists_again_and_synthesises_the_missed_delete() -> None:
    script = (
        listed(an_object("a"), an_object("b")),
        watched(error=Gone("too old", status=410)),
        listed(an_object("b"), an_object("c", version="8"), version="9"),
    )
    async with playing(*script) as (informer, api, changes):
        assert api.verbs == ["list", "watch 1", "list", "watch 9"]
        assert told(changes) == ["added a", "added b", "deleted a", "added c"]
        assert names(informer) == {"b", "c"}


async def test_gone_after_events_lists_again_too() -> None:
    script = (listed(), watched(added("a", version="5"), error=Gone("too old")), listed())
    async with playing(*script) as (_, api, changes):
        assert api.verbs == ["list", "watch 1", "list", "watch 1"]
        assert told(changes) == ["added a", "deleted a"]


async def test_an_object_replaced_in_a_gap_is_a_delete_and_an_add() -> None:
    script = (
        listed(an_object("a", uid="first")),
        watched(error=Gone("too old")),
        listed(an_object("a", uid="second", version="2")),
    )
    async with playing(*script) as (_, _, changes):
        assert told(changes) == ["added a", "deleted a", "added a"]
        assert changes[1].object["metadata"]["uid"] == "first"


async def test_an_unchanged_object_in_a_new_list_is_no_change() -> None:
    script = (listed(an_object("a")), watched(error=Gone("too old")), listed(an_object("a")))
    async with playing(*script) as (_, _, changes):
        assert told(changes) == ["added a"]


async def test_a_broken_stream_that_had_worked_is_resumed() -> None:
    script = (listed(), watched(added("a", version="3"), error=Unreachable("reset")))
    async with playing(*script) as (_, api, _):
        assert api.verbs == ["list", "watch 1", "watch 3"]


async def test_a_quiet_stream_that_breaks_late_is_resumed() -> None:
    script = (listed(), watched(lasts_s=100, error=Unreachable("reset")))
    async with playing(*script) as (_, api, _):
        assert api.verbs == ["list", "watch 1", "watch 1"]


async def test_a_resumed_stream_that_breaks_at_once_lists_again() -> None:
    reset = Unreachable("reset")
    script = (listed(), watched(lasts_s=100, error=reset), watched(error=reset), listed())
    async with playing(*script) as (_, api, _):
        assert api.verbs == ["list", "watch 1", "watch 1", "list", "watch 1"]


async def test_a_stream_that_breaks_without_an_event_lists_again() -> None:
    script = (listed(), watched(error=Unreachable("refused")), listed(version="2"))
    async with playing(*script) as (_, api, _):
        assert api.verbs == ["list", "watch 1", "list", "watch 2"]


@pytest.mark.parametrize("error", [Forbidden("no right"), ServerError("500"), Unreachable("no")])
async def test_a_failed_list_is_repeated(error: Exception) -> None:
    async with playing(Listed(error=error), listed(an_object("a"))) as (informer, _, _):
        assert names(informer) == {"a"}


async def test_the_first_retry_is_quick_and_later_ones_wait_longer() -> None:
    failures = [Listed(error=Unreachable("refused")) for _ in range(12)]
    async with playing(*failures, listed()) as (_, api, _):
        times = [call.at_s for call in api.calls]
        waits = [after - before for before, after in itertools.pairwise(times)]
        assert waits[0] <= 0.1
        assert waits[5] > waits[1]
        assert all(15 <= wait <= 30 for wait in waits[9:12])


async def test_a_watch_that_does_its_work_resets_the_waiting() -> None:
    failures = [Listed(error=Unreachable("refused")) for _ in range(8)]
    script: Script = (
        *failures,
        listed(),
        watched(added("a", version="2"), error=Unreachable("reset")),
    )
    async with playing(*script) as (_, api, _):
        assert api.calls[-1].at_s - api.calls[-2].at_s <= 0.11


async def test_a_quiet_watch_that_lived_resets_the_waiting() -> None:
    failures = [Listed(error=Unreachable("refused")) for _ in range(8)]
    quiet = watched(lasts_s=20, error=Unreachable("reset"))
    async with playing(*failures, listed(), quiet, listed()) as (_, api, _):
        assert api.calls[-1].at_s - api.calls[-2].at_s <= 20.11


async def test_the_servers_wish_to_wait_is_honoured() -> None:
    error = TooManyRequests("busy", status=429, retry_after_s=7.0)
    async with playing(Listed(error=error), listed()) as (_, api, _):
        assert api.calls[1].at_s - api.calls[0].at_s >= 7.0


async def test_watches_that_end_at_once_do_not_spin() -> None:
    turns = [turn for _ in range(10) for turn in (listed(), watched(bookmark("2")))]
    script: Script = (*turns, listed())
    async with playing(*script) as (_, api, _):
        assert api.calls[-1].at_s - api.calls[0].at_s > 10


async def test_a_callback_that_raises_stops_nobody() -> None:
    api = scripted(listed(an_object("a")), watched(added("b", version="2")))
    informer = Informer(api, PODS)
    seen: list[str] = []

    def broken(change: Change) -> None:
        raise RuntimeError("bug in a subscriber")

    informer.subscribe(broken)
    informer.subscribe(lambda change: seen.append(change.key[1]))
    task = asyncio.create_task(informer.run(), name="informer")
    await api.finished()
    task.cancel()
    assert seen == ["a", "b"]


async def test_a_callback_sees_the_whole_new_list() -> None:
    api = scripted(listed(an_object("a"), an_object("b")))
    informer = Informer(api, PODS)
    sizes: list[int] = []
    informer.subscribe(lambda _: sizes.append(len(informer.items)))
    task = asyncio.create_task(informer.run(), name="informer")
    await informer.wait_synced()
    task.cancel()
    assert sizes == [2, 2]


async def test_an_ended_subscription_hears_nothing() -> None:
    api = scripted(listed(an_object("a")))
    informer = Informer(api, PODS)
    seen: list[Change] = []
    informer.subscribe(seen.append)()
    task = asyncio.create_task(informer.run(), name="informer")
    await api.finished()
    task.cancel()
    assert seen == []


async def test_kept_is_only_what_keep_returns() -> None:
    def keep(body: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": body["metadata"]}

    script = (listed(an_object("a", spec="big")), watched(added("b", version="2", spec="big")))
    async with playing(*script, keep=keep) as (informer, _, _):
        assert all("spec" not in body for body in informer.items.values())


async def test_items_of_a_list_know_their_kind() -> None:
    async with playing(listed(an_object("a"))) as (informer, _, _):
        assert informer.items["", "a"]["kind"] == "Pod"
        assert informer.items["", "a"]["apiVersion"] == "v1"


async def test_selectors_reach_list_and_watch() -> None:
    kwargs = {"namespace": "ns", "label_selector": "l=1", "field_selector": "f=2"}
    async with playing(listed(), **kwargs) as (_, api, _):
        expected = {"namespace": "ns", "selectors": ("l=1", "f=2")}
        assert api.arguments == [expected, expected]


async def test_activity_is_noted_and_failures_are_not_activity() -> None:
    script = (listed(), watched(added("a", version="2"), lasts_s=40, error=Unreachable("reset")))
    async with playing(*script) as (informer, api, _):
        assert informer.last_activity_s == api.calls[1].at_s
        assert api.calls[-1].at_s >= informer.last_activity_s + 40
        assert informer.last_turn_s >= informer.last_activity_s + 40


async def test_a_malformed_event_lists_again() -> None:
    broken = added("a", version="2")
    del broken.object["metadata"]["name"]
    script = (listed(), watched(broken), listed(an_object("a")))
    async with playing(*script) as (informer, _, _):
        assert names(informer) == {"a"}


async def test_shows_its_state() -> None:
    async with playing(listed(an_object("a"))) as (informer, _, _):
        assert repr(informer) == "<Informer pods synced, 1 objects>"
