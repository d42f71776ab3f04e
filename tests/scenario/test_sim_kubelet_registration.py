"""The registration sequence and the wiping of slices, with a driver on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_kube.errors import ServerError
from nvdra_kube.resources import RESOURCE_SLICES
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.cluster.kubelet.dra_client import DraCallError
from nvdra_sim.cluster.kubelet.plugins import PluginRegistry, RegistrationTimes
from nvdra_sim.cluster.kubelet.slice_wiper import SliceWiper
from nvdra_testing.dra_plugin import DRIVER, FakeDriver, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from nvdra_kube.api import Body

# A driver that answers late on a busy machine is asked only once all the same.
TIMES = RegistrationTimes(
    scan_s=0.01,
    info_limit_s=30.0,
    notify_limit_s=30.0,
    retry_first_s=0.01,
    connection_check_s=0.01,
)


@asynccontextmanager
async def running(registry: PluginRegistry | SliceWiper) -> AsyncIterator[None]:
    task = asyncio.create_task(registry.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def registry(tmp_path: Path) -> PluginRegistry:
    return PluginRegistry(tmp_path / "plugins_registry", times=TIMES)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(45):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_driver_is_asked_then_told_that_it_is_registered(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    async with running(registry), serving(FakeDriver(), tmp_path) as driver:
        await registry.wait_registered(DRIVER)
        await until(lambda: driver.notified)
    assert driver.notified == [(True, "")]
    assert driver.asked == 1


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        (("v1.DRAPlugin", "v1beta1.DRAPlugin"), "v1.DRAPlugin"),
        (("v1beta1.DRAPlugin", "v1.DRAPlugin"), "v1beta1.DRAPlugin"),
        (("v7.DRAPlugin", "v1.DRAResourceHealth", "v1beta1.DRAPlugin"), "v1beta1.DRAPlugin"),
    ],
)
async def test_the_first_known_service_of_the_drivers_list_is_used(
    registry: PluginRegistry, tmp_path: Path, versions: tuple[str, ...], chosen: str
) -> None:
    async with running(registry), serving(FakeDriver(versions=versions), tmp_path):
        await registry.wait_registered(DRIVER)
        client = registry.client(DRIVER)
        assert client is not None
        assert client.service == chosen


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        ({"type": "CSIPlugin"}, "CSIPlugin"),
        ({"name": ""}, "no driver name"),
        ({"versions": ()}, "offers nothing"),
        ({"versions": ("1.0.0",)}, "offers 1.0.0"),
    ],
)
async def test_a_refused_driver_hears_why_again_and_again(
    registry: PluginRegistry, tmp_path: Path, driver: dict[str, Any], reason: str
) -> None:
    async with running(registry), serving(FakeDriver(**driver), tmp_path) as refused:
        await until(lambda: len(refused.notified) >= 2)
    assert all(not accepted and reason in text for accepted, text in refused.notified)
    assert registry.client(DRIVER) is None


async def test_a_driver_that_fails_its_notification_is_not_registered(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    async with running(registry), serving(FakeDriver(refuses=True), tmp_path) as driver:
        await until(lambda: len(driver.notified) >= 2)
        driver.refuses = False
        await registry.wait_registered(DRIVER)
        await until(lambda: registry.is_live(DRIVER))


async def test_dot_names_and_plain_files_are_left_alone(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    (tmp_path / "plugins_registry").mkdir()
    (tmp_path / "plugins_registry/file.sock").touch()
    async with running(registry), serving(FakeDriver(), tmp_path, socket=".hidden") as hidden:
        async with serving(FakeDriver(name="other"), tmp_path, socket="b", dra="b.sock"):
            await registry.wait_registered("other")
        assert hidden.asked == 0


async def test_a_left_over_socket_hinders_nobody_and_is_taken_up_when_it_lives(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    async with serving(FakeDriver(), tmp_path, socket=".kept"):
        (tmp_path / "plugins_registry/.kept").rename(tmp_path / "plugins_registry/dead")
    async with running(registry):
        async with serving(FakeDriver(name="other"), tmp_path, socket="b"):
            await registry.wait_registered("other")
        assert registry.client(DRIVER) is None
        (tmp_path / "plugins_registry/dead").unlink()
        async with serving(FakeDriver(), tmp_path, socket="dead"):
            await registry.wait_registered(DRIVER)


async def test_a_renamed_socket_in_a_folder_is_found(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    folder = tmp_path / "plugins_registry/sub"
    folder.mkdir(parents=True)
    async with running(registry), serving(FakeDriver(), tmp_path, socket="sub/.x"):
        (folder / ".x").rename(folder / "x.sock")
        await registry.wait_registered(DRIVER)


async def test_removing_the_socket_deregisters_and_a_new_one_registers_again(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    async with running(registry):
        for _ in range(2):
            async with serving(FakeDriver(), tmp_path) as driver:
                await registry.wait_registered(DRIVER)
                while not driver.notified:
                    await asyncio.sleep(0.01)
            await registry.wait_gone(DRIVER)
    assert driver.asked == 1


async def test_the_instance_registered_last_is_called(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    async with running(registry), serving(FakeDriver(), tmp_path, socket="a", dra="a.sock"):
        await registry.wait_registered(DRIVER)
        async with serving(FakeDriver(), tmp_path, socket="b", dra="b.sock") as newer:
            await until(lambda: newer.notified)
            assert endpoint(registry) == newer.endpoint
        await until(lambda: endpoint(registry) == str(tmp_path / "a.sock"))


async def test_a_newer_instance_without_a_connection_is_passed_over(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    own = tmp_path / "own.sock"
    newer = FakeDriver(endpoint=str(own))
    async with running(registry), serving(FakeDriver(), tmp_path, socket="a", dra="a.sock") as old:
        await until(lambda: old.notified)
        async with serving(newer, tmp_path, socket="b", dra="b.sock"):
            async with accepting(own):
                await until(lambda: newer.notified and endpoint(registry) == str(own))
            await until(lambda: endpoint(registry) == old.endpoint)
            assert registry.is_live(DRIVER)


async def test_a_driver_is_gone_only_with_its_last_instance(tmp_path: Path) -> None:
    told: list[bool] = []
    plugins = PluginRegistry(
        tmp_path / "plugins_registry",
        times=TIMES,
        on_change=lambda driver: told.append(plugins.is_live(driver)),
    )
    async with running(plugins):
        async with serving(FakeDriver(), tmp_path, socket="a", dra="a.sock") as old:
            await until(lambda: old.notified)
            async with serving(FakeDriver(), tmp_path, socket="b", dra="b.sock") as newer:
                await until(lambda: newer.notified)
            await until(lambda: endpoint(plugins) == old.endpoint)
        await plugins.wait_gone(DRIVER)
    assert told[-1] is False
    assert all(told[:-1])


async def test_calls_to_an_instance_end_with_its_registration(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    async with running(registry), serving(FakeDriver(), tmp_path) as driver:
        driver.go_on.clear()
        await registry.wait_registered(DRIVER)
        client = registry.client(DRIVER)
        assert client is not None
        call = asyncio.create_task(client.prepare([ClaimRef("default", "claim", "uid")]))
        await until(lambda: driver.calls)
        (tmp_path / "plugins_registry" / "reg.sock").unlink()
        with pytest.raises(DraCallError, match="Unavailable"):
            await call


async def test_a_second_socket_for_the_same_endpoint_is_refused(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    async with running(registry), serving(FakeDriver(), tmp_path, socket="a") as first:
        await until(lambda: first.notified)
        twin = FakeDriver(endpoint=first.endpoint)
        async with serving(twin, tmp_path, socket="b", dra="b.sock"):
            await until(lambda: twin.notified)
    accepted, text = twin.notified[0]
    assert not accepted
    assert "by another socket" in text


@asynccontextmanager
async def accepting(path: Path) -> AsyncIterator[None]:
    """A socket that takes one connection, and loses it at the end, as a dying process does."""
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(lambda _, writer: writers.append(writer), path)
    yield
    # A client is connected before it is accepted. asyncio loses a connection that is on the way
    # when its server is closed, without closing it.
    await until(lambda: writers)
    server.close()
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    path.unlink()


async def test_a_driver_without_connection_is_not_live_until_it_is_back(
    registry: PluginRegistry, tmp_path: Path
) -> None:
    own = tmp_path / "own.sock"
    async with running(registry), serving(FakeDriver(endpoint=str(own)), tmp_path):
        async with accepting(own):
            await until(lambda: registry.is_live(DRIVER))
        await until(lambda: not registry.is_live(DRIVER))
        assert registry.client(DRIVER) is not None
        async with accepting(own):
            await until(lambda: registry.is_live(DRIVER))


def endpoint(registry: PluginRegistry) -> str:
    client = registry.client(DRIVER)
    return client.endpoint if client else ""


@pytest.fixture
async def api() -> LocalApi:
    api = LocalApi(ClusterStore())
    for name, spec in (
        ("a1", {"driver": "a.example.com", "nodeName": "n1"}),
        ("b1", {"driver": "b.example.com", "nodeName": "n1"}),
        ("a2", {"driver": "a.example.com", "nodeName": "n2"}),
    ):
        await api.create(RESOURCE_SLICES, a_slice(name, **spec))
    return api


def a_slice(name: str, **spec: str) -> Body:
    pool = {"name": name, "generation": 1, "resourceSliceCount": 1}
    return {"metadata": {"name": name}, "spec": {**spec, "pool": pool, "devices": []}}


async def slices(api: LocalApi) -> set[str]:
    return {item["metadata"]["name"] for item in (await api.list(RESOURCE_SLICES))["items"]}


async def test_the_start_of_a_kubelet_wipes_all_slices_of_its_node_alone(api: LocalApi) -> None:
    await SliceWiper(api, node="n1").wipe_all()
    assert await slices(api) == {"a2"}


async def test_wiping_is_repeated_until_the_api_lets_it(api: LocalApi) -> None:
    class Flaky(LocalApi):
        failures = 2

        async def list(self, *args: Any, **kwargs: Any) -> Body:
            if self.failures:
                self.failures -= 1
                raise ServerError("not now", status=503)
            return await super().list(*args, **kwargs)

    await SliceWiper(Flaky(api.store), node="n1", retry_first_s=0.01).wipe_all()
    assert await slices(api) == {"a2"}


async def test_a_driver_that_stays_away_loses_its_slices_on_this_node(api: LocalApi) -> None:
    wiper = SliceWiper(api, node="n1", delay_s=0.05)
    async with running(wiper), asyncio.timeout(45):
        wiper.driver_gone("a.example.com")
        while "a1" in await slices(api):
            await asyncio.sleep(0.01)
    assert await slices(api) == {"b1", "a2"}


async def test_a_driver_that_comes_back_in_time_keeps_its_slices(api: LocalApi) -> None:
    wiper = SliceWiper(api, node="n1", delay_s=0.1)
    async with running(wiper), asyncio.timeout(45):
        wiper.driver_gone("a.example.com")
        wiper.driver_gone("b.example.com")
        wiper.driver_back("a.example.com")
        while "b1" in await slices(api):
            await asyncio.sleep(0.01)
    assert await slices(api) == {"a1", "a2"}


async def test_slices_still_stand_before_the_delay_is_over(api: LocalApi) -> None:
    wiper = SliceWiper(api, node="n1", delay_s=3600)
    async with running(wiper):
        wiper.driver_gone("a.example.com")
        for _ in range(20):
            await asyncio.sleep(0)
    assert "a1" in await slices(api)
