"""Watches of the embedded API server: order, history, bookmarks, selectors."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_kube.errors import AlreadyExists, BadRequest, Gone, NotFound, ServerError
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_testing.server_objects import CONFIG_MAPS, a_config_map

if TYPE_CHECKING:
    from nvdra_kube.api import Body, WatchEvent

pytestmark = pytest.mark.looptime


@pytest.fixture
def store() -> ClusterStore:
    return ClusterStore(history_limit=4)


@pytest.fixture
def api(store: ClusterStore) -> LocalApi:
    return LocalApi(store)


async def seen(api: LocalApi, version: str, **options: object) -> list[WatchEvent]:
    """What a watch of ten (fake) seconds brings."""
    events = api.watch(CONFIG_MAPS, resource_version=version, timeout_s=10.0, **options)  # type: ignore[arg-type]
    return [event async for event in events]


def told(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type, event.object["metadata"].get("name", "")) for event in events]


async def change(api: LocalApi, name: str, **data: str) -> Body:
    body = await api.get(CONFIG_MAPS, name, namespace="default")
    return await api.update(CONFIG_MAPS, {**body, "data": data})


async def test_a_watch_tells_each_change_in_order(api: LocalApi) -> None:
    version = (await api.list(CONFIG_MAPS))["metadata"]["resourceVersion"]
    watching = asyncio.create_task(seen(api, version))
    await api.create(CONFIG_MAPS, a_config_map("a"))
    await change(api, "a", x="1")
    await api.delete(CONFIG_MAPS, "a", namespace="default")
    assert told(await watching) == [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
        ("BOOKMARK", ""),
    ]


async def test_a_watch_begins_behind_its_version(api: LocalApi) -> None:
    first = await api.create(CONFIG_MAPS, a_config_map("a"))
    await api.create(CONFIG_MAPS, a_config_map("b"))
    events = await seen(api, first["metadata"]["resourceVersion"])
    assert told(events)[0] == ("ADDED", "b")


async def test_a_watch_from_nothing_begins_with_what_is_there(api: LocalApi) -> None:
    await api.create(CONFIG_MAPS, a_config_map("b"))
    await api.create(CONFIG_MAPS, a_config_map("a"))
    assert told(await seen(api, ""))[:2] == [("ADDED", "a"), ("ADDED", "b")]


async def test_a_deleted_object_carries_the_version_of_its_end(
    api: LocalApi, store: ClusterStore
) -> None:
    body = await api.create(CONFIG_MAPS, a_config_map("a", x="1"))
    await api.delete(CONFIG_MAPS, "a", namespace="default")
    event = (await seen(api, body["metadata"]["resourceVersion"]))[0]
    assert event.object["data"] == {"x": "1"}
    assert event.object["metadata"]["resourceVersion"] == str(store.revision)


async def test_an_idle_watch_ends_with_a_bookmark_of_now(
    api: LocalApi, store: ClusterStore
) -> None:
    events = await seen(api, str(store.revision))
    assert told(events) == [("BOOKMARK", "")]
    assert events[0].object["metadata"]["resourceVersion"] == str(store.revision)


async def test_other_resources_are_not_told(api: LocalApi, store: ClusterStore) -> None:
    watching = asyncio.create_task(seen(api, str(store.revision)))
    store.create(
        store.catalog.at("", "v1", "secrets"), {"metadata": {"name": "s"}}, namespace="default"
    )
    assert told(await watching) == [("BOOKMARK", "")]


async def test_coming_into_a_selector_is_an_addition(api: LocalApi, store: ClusterStore) -> None:
    await api.create(CONFIG_MAPS, a_config_map("a"))
    watching = asyncio.create_task(seen(api, str(store.revision), label_selector="on=yes"))
    label = {"metadata": {"labels": {"on": "yes"}}}
    await api.patch(CONFIG_MAPS, "a", label, namespace="default")
    await change(api, "a", x="1")
    await api.patch(CONFIG_MAPS, "a", {"metadata": {"labels": None}}, namespace="default")
    await change(api, "a", x="2")
    assert [kind for kind, _ in told(await watching)] == [
        "ADDED",
        "MODIFIED",
        "DELETED",
        "BOOKMARK",
    ]


async def test_a_version_that_history_forgot_is_gone(api: LocalApi, store: ClusterStore) -> None:
    old = str(store.revision)
    for number in range(20):
        await api.create(CONFIG_MAPS, a_config_map(f"c{number}"))
    with pytest.raises(Gone, match="too old resource version"):
        await seen(api, old)


async def test_recent_history_is_kept(api: LocalApi, store: ClusterStore) -> None:
    for number in range(20):
        await api.create(CONFIG_MAPS, a_config_map(f"c{number}"))
    assert len(await seen(api, str(store.revision - 4))) == 5


async def test_compaction_ends_watches_that_lag_behind(api: LocalApi, store: ClusterStore) -> None:
    old = str(store.revision)
    await api.create(CONFIG_MAPS, a_config_map("a"))
    store.compact()
    with pytest.raises(Gone):
        await seen(api, old)


async def test_compaction_leaves_current_watches_alone(api: LocalApi, store: ClusterStore) -> None:
    watching = asyncio.create_task(seen(api, str(store.revision)))
    await asyncio.sleep(1)
    store.compact()
    await api.create(CONFIG_MAPS, a_config_map("a"))
    assert told(await watching)[0] == ("ADDED", "a")


async def test_a_version_from_the_future_is_refused(api: LocalApi) -> None:
    with pytest.raises(ServerError, match="Too large resource version") as caught:
        await seen(api, "1000000")
    assert caught.value.status == 504


async def test_a_version_must_be_a_number(api: LocalApi) -> None:
    with pytest.raises(BadRequest, match="resourceVersion must be a number"):
        await seen(api, "abc")


async def test_long_watches_get_bookmarks_in_between(api: LocalApi, store: ClusterStore) -> None:
    events = api.watch(CONFIG_MAPS, resource_version=str(store.revision), timeout_s=150.0)
    assert [event.type async for event in events] == ["BOOKMARK"] * 3


async def test_a_watch_whose_timer_rings_a_trace_early_ends(
    api: LocalApi, store: ClusterStore
) -> None:
    # The loop wakes what is due within a nanosecond, and no time passes in between.
    version, limit_s = str(store.revision), 10 + 5e-10
    events = api.watch(CONFIG_MAPS, resource_version=version, timeout_s=limit_s)
    assert [(await anext(events)).type] == ["BOOKMARK"]
    assert await anext(events, None) is None


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, str]]:
    """What happens to three objects: made, changed, given or robbed of a label, deleted."""
    act = st.sampled_from(["create", "change", "label", "unlabel", "delete"])
    return draw(st.lists(st.tuples(act, st.sampled_from("abc")), max_size=25))


async def perform(api: LocalApi, act: str, name: str, number: int) -> None:
    with suppress(NotFound, AlreadyExists):
        match act:
            case "create":
                await api.create(CONFIG_MAPS, a_config_map(name))
            case "change":
                await change(api, name, x=str(number))
            case "delete":
                await api.delete(CONFIG_MAPS, name, namespace="default")
            case _:
                labels = {"on": "yes"} if act == "label" else None
                patch = {"metadata": {"labels": labels}}
                await api.patch(CONFIG_MAPS, name, patch, namespace="default")


async def mirrored(acts: list[tuple[str, str]], start: int, selector: str) -> None:
    """List in the middle of the acts, replay the watch from there, compare with the end."""
    api = LocalApi(ClusterStore())
    for number, (act, name) in enumerate(acts[:start]):
        await perform(api, act, name, number)
    first = await api.list(CONFIG_MAPS, label_selector=selector)
    mirror = {body["metadata"]["name"]: body for body in first["items"]}
    for number, (act, name) in enumerate(acts[start:], start):
        await perform(api, act, name, number)
    version = first["metadata"]["resourceVersion"]
    async for event in api.watch(
        CONFIG_MAPS, resource_version=version, label_selector=selector, timeout_s=0.0
    ):
        name = event.object["metadata"].get("name", "")
        match event.type:
            case "ADDED":
                assert name not in mirror
                mirror[name] = event.object
            case "MODIFIED":
                assert name in mirror
                mirror[name] = event.object
            case "DELETED":
                del mirror[name]
    last = await api.list(CONFIG_MAPS, label_selector=selector)
    assert mirror == {body["metadata"]["name"]: body for body in last["items"]}


@given(histories(), st.integers(0, 25), st.sampled_from(["", "on=yes", "!on"]))
def test_a_list_and_its_watch_always_give_the_present(
    acts: list[tuple[str, str]], start: int, selector: str
) -> None:
    asyncio.run(mirrored(acts, start, selector))
