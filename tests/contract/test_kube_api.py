"""What every `KubeApi` promises: the session over HTTPS and the API in process alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from nvdra_kube import errors
from nvdra_kube.resources import EVENTS, NODES, RESOURCE_SLICES
from nvdra_sim.cluster.apiserver import ClusterStore, Fault, LocalApi
from nvdra_testing.kube_server import a_node, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_kube.api import KubeApi, WatchEvent


@pytest.fixture
def store() -> ClusterStore:
    return ClusterStore(version="v1.35.0-gke.1")


@pytest.fixture(params=["https", "local"])
async def api(request: pytest.FixtureRequest, store: ClusterStore) -> AsyncIterator[KubeApi]:
    if request.param == "local":
        yield LocalApi(store)
    else:
        async with connected(store, timeout_s=20) as session:
            yield session


@asynccontextmanager
async def closing_stream(stream: AsyncIterator[WatchEvent]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        assert isinstance(stream, AsyncGenerator)
        await stream.aclose()


async def watched(
    api: KubeApi, version: str, count: int, *, label_selector: str = ""
) -> list[WatchEvent]:
    """The first events after a version, bookmarks left out."""
    found: list[WatchEvent] = []
    stream = api.watch(NODES, resource_version=version, label_selector=label_selector)
    async with asyncio.timeout(20), closing_stream(stream):
        async for event in stream:
            if event.type != "BOOKMARK":
                found.append(event)
            if len(found) == count:
                break
    return found


async def test_what_was_created_can_be_read(api: KubeApi) -> None:
    created = await api.create(NODES, a_node("n"))
    assert created["metadata"]["uid"]
    assert await api.get(NODES, "n") == created


async def test_returned_objects_belong_to_the_caller(api: KubeApi) -> None:
    created = await api.create(NODES, a_node("n"))
    created["metadata"]["labels"]["mine"] = "yes"
    assert "mine" not in (await api.get(NODES, "n"))["metadata"]["labels"]


async def test_a_taken_name_is_told(api: KubeApi) -> None:
    await api.create(NODES, a_node("n"))
    with pytest.raises(errors.AlreadyExists) as caught:
        await api.create(NODES, a_node("n"))
    assert caught.value.status == 409


async def test_a_missing_object_is_told(api: KubeApi) -> None:
    for call in (api.get(NODES, "n"), api.delete(NODES, "n"), api.patch(NODES, "n", {})):
        with pytest.raises(errors.NotFound):
            await call


async def test_a_stale_update_conflicts(api: KubeApi) -> None:
    first = await api.create(NODES, a_node("n"))
    await api.patch(NODES, "n", {"metadata": {"labels": {"a": "1"}}})
    with pytest.raises(errors.Conflict) as caught:
        await api.update(NODES, first)
    assert not isinstance(caught.value, errors.AlreadyExists)


async def test_a_dry_run_leaves_nothing(api: KubeApi) -> None:
    assert await api.create(NODES, a_node("n"), dry_run=True)
    with pytest.raises(errors.NotFound):
        await api.get(NODES, "n")


async def test_a_delete_of_another_life_conflicts(api: KubeApi) -> None:
    await api.create(NODES, a_node("n"))
    with pytest.raises(errors.Conflict):
        await api.delete(NODES, "n", uid="somebody-else")
    assert await api.get(NODES, "n")


async def test_selectors_choose(api: KubeApi) -> None:
    await api.create(NODES, a_node("a", gpu="yes"))
    await api.create(NODES, a_node("b", gpu="no"))
    by_label = await api.list(NODES, label_selector="gpu in (yes)")
    by_field = await api.list(NODES, field_selector="metadata.name=b")
    assert [item["metadata"]["name"] for item in by_label["items"]] == ["a"]
    assert [item["metadata"]["name"] for item in by_field["items"]] == ["b"]


async def test_a_watch_goes_on_where_the_list_ended(api: KubeApi) -> None:
    await api.create(NODES, a_node("before"))
    version = (await api.list(NODES))["metadata"]["resourceVersion"]
    await api.create(NODES, a_node("n"))
    await api.patch(NODES, "n", {"metadata": {"labels": {"a": "1"}}})
    await api.delete(NODES, "n")
    events = await watched(api, version, 3)
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]


async def test_leaving_a_selector_looks_like_a_delete(api: KubeApi) -> None:
    await api.create(NODES, a_node("n", gpu="yes"))
    version = (await api.list(NODES))["metadata"]["resourceVersion"]
    await api.patch(NODES, "n", {"metadata": {"labels": {"gpu": None}}})
    [event] = await watched(api, version, 1, label_selector="gpu=yes")
    assert event.type == "DELETED"


async def test_a_lost_history_is_gone(api: KubeApi, store: ClusterStore) -> None:
    version = (await api.list(NODES))["metadata"]["resourceVersion"]
    await api.create(NODES, a_node("a"))
    await api.create(NODES, a_node("b"))
    store.compact()
    with pytest.raises(errors.Gone):
        await watched(api, version, 1)


async def test_a_watch_ends_after_its_time(api: KubeApi) -> None:
    stream = api.watch(NODES, resource_version="1", timeout_s=1)
    async with asyncio.timeout(20), closing_stream(stream):
        types = [event.type async for event in stream]
    assert set(types) <= {"ADDED", "BOOKMARK"}


async def test_objects_of_a_megabyte_go_through(api: KubeApi) -> None:
    version = (await api.list(NODES))["metadata"]["resourceVersion"]
    node = a_node("n")
    node["metadata"]["annotations"] = {"note": "x" * 200_000}
    node["status"] = {"images": [{"names": ["y" * 1000]} for _ in range(1000)]}
    created = await api.create(NODES, node)
    [event] = await watched(api, version, 1)
    assert event.object == created == await api.get(NODES, "n")


async def test_names_can_be_generated(api: KubeApi) -> None:
    slice_ = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"generateName": "n-gpu-"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": "n",
            "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1},
            "devices": [],
        },
    }
    created = await api.create(RESOURCE_SLICES, slice_)
    assert created["metadata"]["name"].startswith("n-gpu-")


async def test_the_version_is_that_of_the_server(api: KubeApi) -> None:
    assert await api.server_version() == "v1.35.0-gke.1"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (422, errors.Invalid),
        (500, errors.ServerError),
    ],
)
async def test_refusals_are_typed(
    api: KubeApi, store: ClusterStore, status: int, expected: type[errors.ApiError]
) -> None:
    store.faults.add(Fault(verb="create", resource="events", status=status))
    with pytest.raises(expected):
        await api.create(EVENTS, {"metadata": {"name": "e"}}, namespace="default")
