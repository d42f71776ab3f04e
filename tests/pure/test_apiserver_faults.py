"""Trouble on demand, in fake time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from nvdra_kube.errors import Conflict, Gone, NotFound, ServerError, TooManyRequests
from nvdra_kube.resources import RESOURCE_SLICES
from nvdra_sim.cluster.apiserver import ClusterStore, Fault, LocalApi
from nvdra_testing.dra_objects import a_device, a_slice
from nvdra_testing.server_objects import CONFIG_MAPS, a_config_map

pytestmark = pytest.mark.looptime


@pytest.fixture
def store() -> ClusterStore:
    return ClusterStore(seed=7)


@pytest.fixture
def api(store: ClusterStore) -> LocalApi:
    return LocalApi(store)


async def test_a_fault_strikes_as_often_as_it_is_told(api: LocalApi, store: ClusterStore) -> None:
    fault = store.faults.add(Fault(verb="list", status=503, count=2))
    for _ in range(2):
        with pytest.raises(ServerError):
            await api.list(CONFIG_MAPS)
    await api.list(CONFIG_MAPS)
    assert fault.struck == 2


async def test_a_fault_strikes_only_what_it_names(api: LocalApi, store: ClusterStore) -> None:
    store.faults.add(Fault(verb="update", resource="configmaps", name="config", status=409))
    body = await api.create(CONFIG_MAPS, a_config_map())
    other = await api.create(CONFIG_MAPS, a_config_map("other"))
    await api.update(CONFIG_MAPS, other)
    with pytest.raises(Conflict):
        await api.update(CONFIG_MAPS, body)


async def test_a_fault_knows_the_name_of_what_is_created(
    api: LocalApi, store: ClusterStore
) -> None:
    store.faults.add(Fault(verb="create", name="config", status=503))
    await api.create(CONFIG_MAPS, a_config_map("other"))
    with pytest.raises(ServerError):
        await api.create(CONFIG_MAPS, a_config_map("config"))


async def test_throttling_says_for_how_long(api: LocalApi, store: ClusterStore) -> None:
    store.faults.add(Fault(status=429, retry_after_s=3.0))
    with pytest.raises(TooManyRequests) as caught:
        await api.list(CONFIG_MAPS)
    assert caught.value.retry_after_s == 3.0


async def test_latency_takes_time(api: LocalApi, store: ClusterStore) -> None:
    store.faults.add(Fault(latency_s=5.0))
    began = asyncio.get_running_loop().time()
    await api.list(CONFIG_MAPS)
    assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)


async def test_a_hanging_call_never_returns(api: LocalApi, store: ClusterStore) -> None:
    store.faults.add(Fault(hang=True))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await api.list(CONFIG_MAPS)


async def test_an_answer_can_be_lost_after_the_write(api: LocalApi, store: ClusterStore) -> None:
    store.faults.add(Fault(verb="create", status=504, after=True))
    with pytest.raises(ServerError):
        await api.create(CONFIG_MAPS, a_config_map())
    assert await api.get(CONFIG_MAPS, "config", namespace="default")


async def test_before_the_write_means_no_write(api: LocalApi, store: ClusterStore) -> None:
    store.faults.add(Fault(verb="create", status=504))
    with pytest.raises(ServerError):
        await api.create(CONFIG_MAPS, a_config_map())
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAPS, "config", namespace="default")


async def test_fields_can_be_dropped_on_the_way_in(api: LocalApi, store: ClusterStore) -> None:
    store.faults.add(Fault(resource="resourceslices", drop_fields=("spec.devices.taints",)))
    taint = {"key": "a", "effect": "NoSchedule"}
    body = await api.create(RESOURCE_SLICES, a_slice([a_device("d", taints=[taint])]))
    assert "taints" not in body["spec"]["devices"][0]


async def test_a_watch_can_be_refused(api: LocalApi, store: ClusterStore) -> None:
    store.faults.add(Fault(verb="watch", status=410, count=1))
    with pytest.raises(Gone):
        async for _ in api.watch(CONFIG_MAPS, resource_version="0"):
            pass


async def test_a_watch_can_break_in_the_middle(api: LocalApi, store: ClusterStore) -> None:
    await api.create(CONFIG_MAPS, a_config_map("a"))
    await api.create(CONFIG_MAPS, a_config_map("b"))
    store.faults.add(Fault(verb="watch", status=500, after=True))
    seen: list[str] = []
    with pytest.raises(ServerError):
        async for event in api.watch(CONFIG_MAPS, resource_version="0"):
            seen += [event.object["metadata"]["name"]]
    assert seen == ["a"]


async def test_chances_are_those_of_the_seed(api: LocalApi, store: ClusterStore) -> None:
    fault = store.faults.add(Fault(status=500, probability=0.5))
    for _ in range(100):
        with suppress(ServerError):
            await api.list(CONFIG_MAPS)
    assert 30 < fault.struck < 70


async def test_removed_faults_are_gone(api: LocalApi, store: ClusterStore) -> None:
    first, _ = store.faults.add(Fault(status=500)), store.faults.add(Fault(status=409))
    store.faults.remove(first)
    with pytest.raises(Conflict):
        await api.list(CONFIG_MAPS)
    store.faults.clear()
    await api.list(CONFIG_MAPS)
