"""The publisher against the embedded API server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_kube.backoff import Backoff
from nvdra_kube.resources import NODES, RESOURCE_SLICES
from nvdra_nodeagent.slices.errors import (
    FieldsDropped,
    PublishFailed,
    SlicesNotServed,
    SlicesRefused,
)
from nvdra_nodeagent.slices.model import SliceContent, SliceDevice
from nvdra_nodeagent.slices.publisher import Publisher
from nvdra_sim.cluster.apiserver import ClusterStore, Fault, LocalApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nvdra_kube.api import Body, Resource
    from nvdra_nodeagent.errors import AgentError

# Time is the loop's own: waits cost nothing, and "at rest" is no matter of luck.
pytestmark = pytest.mark.looptime

DRIVER = "gpu.nvidia.com"
NODE = "node-1"
SLICES = RESOURCE_SLICES.plural


def contents(*values: int | tuple[int, ...]) -> list[SliceContent]:
    """One slice for each value, with one device that carries it."""
    return [
        SliceContent((SliceDevice(f"gpu-{index}", {"type": "gpu", "id": value}),))
        for index, value in enumerate(values)
    ]


async def a_cluster(**options: Any) -> LocalApi:
    api = LocalApi(ClusterStore(**options))
    await api.create(NODES, {"metadata": {"name": NODE}})
    return api


def a_publisher(api: LocalApi, **options: Any) -> Publisher:
    quick: dict[str, Any] = {
        "debounce_s": 0.001,
        "recheck_s": 0.02,
        "backoff": Backoff(first_s=0.001, limit_s=0.01),
    }
    return Publisher(api, driver=DRIVER, node=NODE, **(quick | options))


def a_publisher_that_gives_in(
    api: LocalApi, instead: list[SliceContent], **options: Any
) -> tuple[Publisher, list[AgentError]]:
    """It desires `instead` when it is told that the server does not take what was desired."""
    told: list[AgentError] = []

    def answer(error: AgentError) -> None:
        told.append(error)
        publisher.desire(instead)

    publisher: Publisher = a_publisher(api, on_degraded=answer, **options)
    return publisher, told


@asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[Publisher]:
    task = asyncio.create_task(publisher.run(), name="publisher")
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def published(api: LocalApi, *values: int | tuple[int, ...]) -> AsyncIterator[Publisher]:
    publisher = a_publisher(api)
    publisher.desire(contents(*values))
    async with running(publisher):
        await publisher.wait_published()
        yield publisher


async def stored(api: LocalApi) -> list[Body]:
    answer = await api.list(RESOURCE_SLICES)
    items: list[Body] = answer["items"]
    return items


async def eventually(condition: Callable[[], bool]) -> None:
    """Polls; the deadline is the test's own time-out."""
    while not condition():
        await asyncio.sleep(0.001)


async def ids(api: LocalApi) -> list[int]:
    return [
        device["attributes"]["id"]["int"]
        for body in await stored(api)
        for device in body["spec"]["devices"]
    ]


async def come_to_rest(publisher: Publisher) -> None:
    """Until the watch has brought everything back and nothing is left to do."""
    await asyncio.sleep(10.0)
    await publisher.wait_published()


async def test_a_pool_is_published_under_names_that_keep_its_order() -> None:
    api = await a_cluster()
    async with published(api, 10, 11):
        first, second = await stored(api)
    assert first["metadata"]["name"].startswith("00000-gpu.nvidia.com-node-1-")
    assert second["metadata"]["name"].startswith("00001-gpu.nvidia.com-node-1-")
    assert first["spec"]["pool"] == {"name": NODE, "generation": 1, "resourceSliceCount": 2}
    assert first["spec"]["nodeName"] == NODE


async def test_slices_belong_to_their_node() -> None:
    api = await a_cluster()
    async with published(api, 1):
        (body,) = await stored(api)
    node = await api.get(NODES, NODE)
    assert body["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "name": NODE,
            "uid": node["metadata"]["uid"],
            "controller": True,
        }
    ]


async def test_an_empty_pool_is_one_slice_without_devices() -> None:
    api = await a_cluster()
    publisher = a_publisher(api)
    publisher.desire([SliceContent()])
    async with running(publisher):
        await publisher.wait_published()
        (body,) = await stored(api)
    assert "devices" not in body["spec"]


async def test_desiring_the_same_again_writes_nothing() -> None:
    api = await a_cluster()
    async with published(api, 1, 2) as publisher:
        publisher.desire(contents(1, 2))
        await come_to_rest(publisher)
        assert publisher.writes.total == 2


async def test_a_restarted_agent_writes_nothing() -> None:
    api = await a_cluster()
    async with published(api, 1, 2, 3):
        pass
    before = await stored(api)
    async with published(api, 1, 2, 3) as publisher:
        await come_to_rest(publisher)
        assert publisher.writes.total == 0
    assert await stored(api) == before


async def test_a_node_name_that_the_server_cuts_is_recognised_after_a_restart() -> None:
    node = "n" * 63 + ".example.com"
    api = LocalApi(ClusterStore())
    await api.create(NODES, {"metadata": {"name": node}})
    for writes in (2, 0):
        publisher = Publisher(api, driver=DRIVER, node=node)
        publisher.desire(contents(1, 2))
        async with running(publisher):
            await come_to_rest(publisher)
        assert publisher.writes.total == writes


async def test_two_agents_that_start_together_agree_on_one_pool() -> None:
    api = await a_cluster()
    first, second = a_publisher(api), a_publisher(api)
    for publisher in (first, second):
        publisher.desire(contents(1, 2))
    async with running(first), running(second):
        await come_to_rest(first)
        await come_to_rest(second)
        assert await ids(api) == [1, 2]


async def test_one_changed_slice_costs_one_write_and_keeps_the_generation() -> None:
    api = await a_cluster()
    async with published(api, 1, 2, 3) as publisher:
        publisher.desire(contents(1, 9, 3))
        await publisher.wait_published()
        assert (publisher.writes.created, publisher.writes.updated) == (3, 1)
        assert await ids(api) == [1, 9, 3]
        assert {body["spec"]["pool"]["generation"] for body in await stored(api)} == {1}


async def test_a_growing_pool_gets_a_new_generation() -> None:
    api = await a_cluster()
    async with published(api, 1, 2) as publisher:
        publisher.desire(contents(1, 2, 3))
        await publisher.wait_published()
        assert await ids(api) == [1, 2, 3]
        assert {body["spec"]["pool"]["generation"] for body in await stored(api)} == {2}


async def test_only_the_latest_of_quick_desires_is_written() -> None:
    api = await a_cluster()
    async with published(api, 0) as publisher:
        for value in range(1, 20):
            publisher.desire(contents(value))
        await publisher.wait_published()
        assert (await ids(api), publisher.writes.updated) == ([19], 1)


async def test_going_back_and_forth_ends_with_the_last_desire() -> None:
    api = await a_cluster()
    async with published(api, 0) as publisher:
        for value in (1, 2, 1, 2, 1):
            publisher.desire(contents(value))
            await publisher.wait_published()
            assert await ids(api) == [value]


async def test_a_wiped_pool_is_back_at_once() -> None:
    api = await a_cluster()
    async with published(api, 1, 2, 3) as publisher:
        old = {body["metadata"]["name"] for body in await stored(api)}
        for name in old:
            await api.delete(RESOURCE_SLICES, name)
        await eventually(lambda: publisher.writes.created == 6)
        await come_to_rest(publisher)
        assert await ids(api) == [1, 2, 3]
        assert publisher.writes.total == 6


class WipedBetweenLists(LocalApi):
    """A kubelet that starts with the agent deletes the slices after the agent has listed them, and
    before its watch does."""

    lists = 0

    async def list(self, resource: Resource, **options: Any) -> Body:
        self.lists += 1
        if self.lists == 2:
            for body in await stored(self):
                await self.delete(RESOURCE_SLICES, body["metadata"]["name"])
        return await super().list(resource, **options)


async def test_a_pool_wiped_while_the_agent_starts_is_back() -> None:
    api = await a_cluster()
    async with published(api, 1, 2):
        pass
    async with published(WipedBetweenLists(api.store), 1, 2) as publisher:
        await eventually(lambda: publisher.writes.created == 2)
    assert await ids(api) == [1, 2]


async def test_a_node_that_came_back_owns_the_repaired_slices() -> None:
    api = await a_cluster()
    async with published(api, 1) as publisher:
        await api.delete(NODES, NODE)
        node = await api.create(NODES, {"metadata": {"name": NODE}})
        for body in await stored(api):
            await api.delete(RESOURCE_SLICES, body["metadata"]["name"])
        await eventually(lambda: publisher.writes.created == 2)
        (body,) = await stored(api)
    assert body["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


async def test_a_slice_that_somebody_edits_is_put_right() -> None:
    api = await a_cluster()
    async with published(api, 1, 2) as publisher:
        body = (await stored(api))[0]
        body["spec"]["devices"][0]["attributes"]["id"] = {"int": 99}
        await api.update(RESOURCE_SLICES, body)
        await eventually(lambda: publisher.writes.updated == 1)
        assert await ids(api) == [1, 2]


async def test_a_foreign_slice_in_our_pool_is_removed() -> None:
    api = await a_cluster()
    async with published(api, 1) as publisher:
        (body,) = await stored(api)
        copy = {**body, "metadata": {"name": "node-1-gpu.nvidia.com-old"}}
        await api.create(RESOURCE_SLICES, copy)
        await eventually(lambda: publisher.writes.deleted == 1)
        assert await stored(api) == [body]


async def test_slices_of_other_drivers_and_nodes_are_left_alone() -> None:
    api = await a_cluster()
    async with published(api, 1) as publisher:
        (body,) = await stored(api)
        for field, name in (("driver", "other.example.com"), ("nodeName", "node-2")):
            spec = {**body["spec"], field: name}
            other = {**body, "metadata": {"name": f"of-{name}"}, "spec": spec}
            await api.create(RESOURCE_SLICES, other)
        await come_to_rest(publisher)
        assert (publisher.writes.deleted, len(await stored(api))) == (0, 3)


@pytest.mark.parametrize("verb", ["create", "list", "watch"])
async def test_an_api_in_trouble_is_asked_again(verb: str) -> None:
    api = await a_cluster()
    api.store.faults.add(Fault(verb=verb, resource=SLICES, status=503, count=3))
    async with published(api, 1, 2) as publisher:
        await come_to_rest(publisher)
        assert await ids(api) == [1, 2]
        assert publisher.last_error is None


async def test_an_answer_that_got_lost_leaves_no_second_slice() -> None:
    api = await a_cluster()
    api.store.faults.add(Fault(verb="create", resource=SLICES, status=504, after=True, count=1))
    async with published(api, 1, 2) as publisher:
        await come_to_rest(publisher)
        assert await ids(api) == [1, 2]


async def test_a_conflict_is_read_again_and_retried_without_failing() -> None:
    api = await a_cluster()
    async with published(api, 1) as publisher:
        api.store.faults.add(Fault(verb="update", resource=SLICES, status=409, count=2))
        publisher.desire(contents(2))
        await publisher.wait_published()
        assert (await ids(api), publisher.failures) == ([2], 0)


async def test_a_refusal_is_the_last_error_until_it_is_over() -> None:
    api = await a_cluster()
    fault = api.store.faults.add(Fault(resource=SLICES, verb="create", status=403))
    publisher = a_publisher(api)
    publisher.desire(contents(1))
    async with running(publisher):
        await eventually(lambda: publisher.failures >= 2)
        assert isinstance(publisher.last_error, PublishFailed)
        assert NODE in str(publisher.last_error)
        assert not publisher.is_published
        api.store.faults.remove(fault)
        await publisher.wait_published()
        assert publisher.last_error is None


async def test_a_missing_node_is_waited_for() -> None:
    api = LocalApi(ClusterStore())
    publisher = a_publisher(api)
    publisher.desire(contents(1))
    async with running(publisher):
        await eventually(lambda: publisher.failures >= 2)
        assert NODE in str(publisher.last_error)
        await api.create(NODES, {"metadata": {"name": NODE}})
        await publisher.wait_published()


async def test_a_desire_ends_the_wait_after_a_failure() -> None:
    api = await a_cluster()
    api.store.faults.add(Fault(resource=SLICES, verb="create", status=500, count=1))
    publisher = a_publisher(api, backoff=Backoff(first_s=1000.0, limit_s=1000.0))
    publisher.desire(contents(1))
    async with running(publisher):
        await eventually(lambda: publisher.failures == 1)
        publisher.desire(contents(2))
        await publisher.wait_published()
        assert await ids(api) == [2]


@pytest.mark.parametrize(
    ("server", "version"), [("v1.36.0", "v1"), ("v1.33.4", "v1beta2"), ("v1.32.0", "v1beta1")]
)
async def test_the_best_version_that_is_served_is_used(server: str, version: str) -> None:
    api = await a_cluster(version=server)
    async with published(api, 1, 2) as publisher:
        items = (await api.list(replace(RESOURCE_SLICES, version=version)))["items"]
        await come_to_rest(publisher)
        assert (len(items), publisher.writes.total) == (2, 2)
    async with published(api, 1, 2) as publisher:
        await come_to_rest(publisher)
        assert publisher.writes.total == 0


async def test_a_server_without_dra_is_said_and_waited_for() -> None:
    api = await a_cluster()
    fault = api.store.faults.add(Fault(resource=SLICES, verb="list", status=404))
    publisher = a_publisher(api)
    publisher.desire(contents(1))
    async with running(publisher):
        await eventually(lambda: publisher.failures >= 2)
        assert isinstance(publisher.last_error, SlicesNotServed)
        api.store.faults.remove(fault)
        await publisher.wait_published()


async def test_a_publisher_turns_while_its_api_server_is_away() -> None:
    api = await a_cluster()
    async with published(api, 1) as publisher:
        api.store.faults.add(Fault(resource=SLICES, status=503))
        publisher.desire(contents(2))
        heard = publisher.last_turn_s
        await eventually(lambda: publisher.last_turn_s > heard)
        assert not publisher.is_published


async def test_a_dropped_field_is_told_once_and_not_written_for_ever() -> None:
    api = await a_cluster()
    fault = Fault(resource=SLICES, drop_fields=("spec.devices.attributes.id",))
    api.store.faults.add(fault)
    told: list[AgentError] = []
    publisher = a_publisher(api, on_degraded=told.append)
    publisher.desire(contents(1, 2))
    async with running(publisher):
        await publisher.wait_published()
        await come_to_rest(publisher)
        assert publisher.writes.total == 2
    (error,) = told
    assert isinstance(error, FieldsDropped)
    assert error.fields == ("devices[gpu-0].attributes.id", "devices[gpu-1].attributes.id")
    assert publisher.last_error is error or str(publisher.last_error) == str(error)


async def test_what_is_desired_after_a_drop_clears_the_error() -> None:
    api = await a_cluster()
    api.store.faults.add(Fault(resource=SLICES, drop_fields=("spec.devices.attributes.id",)))
    plain = [SliceContent((SliceDevice("gpu-0", {"type": "gpu"}),))]
    publisher, told = a_publisher_that_gives_in(api, plain)
    publisher.desire(contents(1))
    async with running(publisher):
        await publisher.wait_published()
        assert publisher.last_error is None
        assert (publisher.writes.total, len(told)) == (1, 1)


async def test_contents_that_the_server_refuses_are_told_and_can_be_replaced() -> None:
    api = await a_cluster()
    api.store.faults.add(Fault(verb="create", resource=SLICES, status=422, count=1))
    slow = Backoff(first_s=1000.0, limit_s=1000.0)
    publisher, told = a_publisher_that_gives_in(api, contents(7), backoff=slow)
    publisher.desire(contents((7,)))
    async with running(publisher):
        await publisher.wait_published()
        assert await ids(api) == [7]
    assert [type(error) for error in told] == [SlicesRefused]


async def test_a_refusal_that_lasts_is_told_once() -> None:
    api = await a_cluster()
    api.store.faults.add(Fault(verb="create", resource=SLICES, status=422))
    told: list[AgentError] = []
    publisher = a_publisher(api, on_degraded=told.append)
    publisher.desire(contents(8))
    async with running(publisher):
        await eventually(lambda: publisher.failures >= 3)
    assert [type(error) for error in told] == [SlicesRefused]


async def test_a_watch_that_lags_costs_no_second_slice() -> None:
    api = await a_cluster()
    api.store.faults.add(Fault(verb="watch", resource=SLICES, hang=True))
    async with published(api, 1, 2) as publisher:
        await come_to_rest(publisher)
        assert publisher.writes.total == 2
        publisher.desire(contents(3, 4))
        await publisher.wait_published()
        assert await ids(api) == [3, 4]


async def test_a_pool_needs_a_slice() -> None:
    publisher = a_publisher(await a_cluster())
    with pytest.raises(ValueError, match="at least one slice"):
        publisher.desire([])
