"""The driver's sockets as the kubelet uses them."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.v1 import health_pb2
from grpclib.health.v1.health_grpc import HealthStub

from nvdra_nodeagent.claims.model import PreparedDevice
from nvdra_nodeagent.errors import Permanent, Retryable
from nvdra_nodeagent.kubelet.liveness import Liveness
from nvdra_nodeagent.kubelet.proto import dra_v1_pb2, dra_v1beta1_pb2, registration_pb2
from nvdra_nodeagent.kubelet.proto.dra_v1_grpc import DRAPluginStub
from nvdra_nodeagent.kubelet.proto.dra_v1beta1_grpc import DRAPluginStub as DRAPluginBetaStub
from nvdra_nodeagent.kubelet.proto.registration_grpc import RegistrationStub
from nvdra_nodeagent.kubelet.socket_file import SocketFile
from nvdra_testing.kubelet import ScriptedClaims, a_plugin, dial

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = PreparedDevice(
    requests=("gpu",),
    pool="node-1",
    device="gpu-0",
    cdi_ids=("k8s.gpu.nvidia.com/claim=u1-gpu-0",),
    share_id="7f5a6c1e-0000-4000-8000-000000000000",
)


def ask(name: str = "one", uid: str = "u1") -> dra_v1_pb2.NodePrepareResourcesRequest:
    claim = dra_v1_pb2.Claim(namespace="default", name=name, uid=uid)
    return dra_v1_pb2.NodePrepareResourcesRequest(claims=[claim])


async def test_get_info_names_the_driver_its_socket_and_the_newest_service_first(
    tmp_path: Path,
) -> None:
    async with a_plugin(tmp_path, ScriptedClaims()) as plugin:
        async with dial(plugin.registration_socket) as channel:
            info = await RegistrationStub(channel).GetInfo(registration_pb2.InfoRequest())
    assert (info.type, info.name) == ("DRAPlugin", "gpu.nvidia.com")
    assert info.endpoint == str(tmp_path / "p" / "dra.sock")
    assert list(info.supported_versions) == ["v1.DRAPlugin", "v1beta1.DRAPlugin"]


async def test_a_registration_is_remembered(tmp_path: Path) -> None:
    async with a_plugin(tmp_path, ScriptedClaims()) as plugin:
        async with dial(plugin.registration_socket) as channel:
            stub = RegistrationStub(channel)
            await stub.NotifyRegistrationStatus(
                registration_pb2.RegistrationStatus(plugin_registered=True)
            )
        assert plugin.registration.registered.is_set()


async def test_a_refused_registration_keeps_its_cause(tmp_path: Path) -> None:
    async with a_plugin(tmp_path, ScriptedClaims()) as plugin:
        async with dial(plugin.registration_socket) as channel:
            stub = RegistrationStub(channel)
            await stub.NotifyRegistrationStatus(
                registration_pb2.RegistrationStatus(plugin_registered=False, error="too old")
            )
        assert not plugin.registration.registered.is_set()
        assert plugin.registration.refusal == "too old"


async def test_prepare_returns_devices_with_their_share_over_v1(tmp_path: Path) -> None:
    async with a_plugin(tmp_path, ScriptedClaims({"one": (DEVICE,)})) as plugin:
        async with dial(plugin.endpoint) as channel:
            answer = await DRAPluginStub(channel).NodePrepareResources(ask())
    (device,) = answer.claims["u1"].devices
    assert list(device.cdi_device_ids) == list(DEVICE.cdi_ids)
    assert device.share_id == DEVICE.share_id
    assert answer.claims["u1"].error == ""


async def test_a_device_without_a_share_leaves_the_field_absent(tmp_path: Path) -> None:
    whole = PreparedDevice(requests=("gpu",), pool="n", device="gpu-0", cdi_ids=("a/b=c",))
    async with a_plugin(tmp_path, ScriptedClaims({"one": (whole,)})) as plugin:
        async with dial(plugin.endpoint) as channel:
            answer = await DRAPluginStub(channel).NodePrepareResources(ask())
    assert not answer.claims["u1"].devices[0].HasField("share_id")


async def test_prepare_works_over_v1beta1(tmp_path: Path) -> None:
    async with a_plugin(tmp_path, ScriptedClaims({"one": (DEVICE,)})) as plugin:
        async with dial(plugin.endpoint) as channel:
            claim = dra_v1beta1_pb2.Claim(namespace="default", name="one", uid="u1")
            answer = await DRAPluginBetaStub(channel).NodePrepareResources(
                dra_v1beta1_pb2.NodePrepareResourcesRequest(claims=[claim])
            )
    assert answer.claims["u1"].devices[0].device_name == "gpu-0"


async def test_a_failing_claim_is_an_error_of_its_own_entry(tmp_path: Path) -> None:
    broken = Permanent("InvalidConfig", "error preparing devices: bad", hint="mend it")
    async with a_plugin(tmp_path, ScriptedClaims({"one": broken, "two": (DEVICE,)})) as plugin:
        async with dial(plugin.endpoint) as channel:
            request = ask()
            request.claims.add(namespace="default", name="two", uid="u2")
            answer = await DRAPluginStub(channel).NodePrepareResources(request)
    assert answer.claims["u1"].error == "error preparing devices: bad; mend it [InvalidConfig]"
    assert len(answer.claims["u2"].devices) == 1


async def test_unprepare_answers_for_every_claim(tmp_path: Path) -> None:
    busy = Retryable("GpuBusy", "still in use")
    async with a_plugin(tmp_path, ScriptedClaims({"one": busy})) as plugin:
        async with dial(plugin.endpoint) as channel:
            request = dra_v1_pb2.NodeUnprepareResourcesRequest()
            request.claims.add(namespace="default", name="one", uid="u1")
            request.claims.add(namespace="default", name="gone", uid="u2")
            answer = await DRAPluginStub(channel).NodeUnprepareResources(request)
    assert answer.claims["u1"].error == "still in use [GpuBusy]"
    assert answer.claims["u2"].error == ""


async def test_a_stop_lets_running_calls_finish_before_the_registration_goes(
    tmp_path: Path,
) -> None:
    claims = ScriptedClaims({"one": (DEVICE,)})
    claims.go_on.clear()
    plugin = a_plugin(tmp_path, claims)
    await plugin.__aenter__()
    async with dial(plugin.endpoint) as channel:
        call = asyncio.create_task(DRAPluginStub(channel).NodePrepareResources(ask()))
        await claims.started.wait()
        stop = asyncio.create_task(plugin.__aexit__(None, None, None))
        await asyncio.sleep(0.05)
        assert plugin.registration_socket.exists()
        claims.go_on.set()
        answer = await call
        await stop
    assert len(answer.claims["u1"].devices) == 1
    assert not plugin.registration_socket.exists()
    assert not plugin.endpoint.exists()


async def test_calls_are_served_until_the_kubelet_has_noticed_the_deregistration(
    tmp_path: Path,
) -> None:
    plugin = a_plugin(tmp_path, ScriptedClaims({"late": (DEVICE,)}), deregistration_s=3600.0)
    await plugin.__aenter__()
    plugin.registration.registered.set()
    async with dial(plugin.endpoint) as channel:
        await DRAPluginStub(channel).NodePrepareResources(ask())
        stop = asyncio.create_task(plugin.__aexit__(None, None, None))
        while plugin.registration_socket.exists():
            await asyncio.sleep(0.001)
        answer = await DRAPluginStub(channel).NodePrepareResources(ask("late"))
        assert not stop.done()
    await stop
    assert len(answer.claims["u1"].devices) == 1


async def test_a_call_that_does_not_end_holds_the_stop_up_for_a_bounded_time(
    tmp_path: Path,
) -> None:
    claims = ScriptedClaims()
    claims.go_on.clear()
    plugin = a_plugin(tmp_path, claims, drain_s=0.01)
    await plugin.__aenter__()
    async with dial(plugin.endpoint) as channel:
        call = asyncio.create_task(DRAPluginStub(channel).NodePrepareResources(ask()))
        await claims.started.wait()
        await plugin.__aexit__(None, None, None)
        assert not call.done()
        call.cancel()
    assert not plugin.endpoint.exists()


async def test_a_socket_left_over_by_a_dead_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "p" / "dra.sock"))
    async with a_plugin(tmp_path, ScriptedClaims()) as plugin, dial(plugin.endpoint) as channel:
        await DRAPluginStub(channel).NodePrepareResources(ask())


async def test_a_file_in_the_place_of_the_socket_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "dra.sock").write_text("mine")
    with pytest.raises(Permanent, match=r"dra\.sock exists and is not a socket"):
        await a_plugin(tmp_path, ScriptedClaims()).__aenter__()
    assert (tmp_path / "p" / "dra.sock").read_text() == "mine"


async def test_a_file_in_the_place_of_the_directory_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Permanent, match=r"file/dra\.sock.*check that the directory exists"):
        SocketFile(tmp_path / "file" / "dra.sock").bind()


async def test_a_path_too_long_for_a_socket_is_named_with_its_limit(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with pytest.raises(Permanent, match="the system allows 107"):
        await a_plugin(deep, ScriptedClaims()).__aenter__()


async def test_the_older_of_two_instances_leaves_the_newer_sockets_alone(tmp_path: Path) -> None:
    older, newer = a_plugin(tmp_path, ScriptedClaims()), a_plugin(tmp_path, ScriptedClaims())
    await older.__aenter__()
    async with newer:
        await older.__aexit__(None, None, None)
        assert newer.registration_socket.exists()
        assert newer.endpoint.exists()


async def test_liveness_follows_the_sockets(tmp_path: Path) -> None:
    plugin = a_plugin(tmp_path, ScriptedClaims())
    liveness = Liveness(registration=plugin.registration_socket, endpoint=plugin.endpoint)
    async with plugin:
        assert await liveness.is_alive()
    assert not await liveness.is_alive()


async def test_liveness_fails_when_a_call_hangs(tmp_path: Path) -> None:
    claims = ScriptedClaims()
    claims.go_on.clear()
    plugin = a_plugin(tmp_path, claims, drain_s=0.01)
    async with plugin:
        liveness = Liveness(
            registration=plugin.registration_socket, endpoint=plugin.endpoint, timeout_s=0.05
        )
        assert not await liveness.is_alive()


async def check(port: int, service: str = "liveness") -> int:
    async with Channel("127.0.0.1", port) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int((await HealthStub(channel).Check(request)).status)


async def test_liveness_is_served_over_tcp(tmp_path: Path) -> None:
    plugin = a_plugin(tmp_path, ScriptedClaims())
    liveness = Liveness(registration=plugin.registration_socket, endpoint=plugin.endpoint)
    serving = health_pb2.HealthCheckResponse.ServingStatus
    async with liveness.served(port=0) as port:
        assert await check(port) == serving.NOT_SERVING
        async with plugin:
            assert await check(port) == await check(port, "") == serving.SERVING
            with pytest.raises(GRPCError) as unknown:
                await check(port, "readiness")
    assert unknown.value.status is Status.NOT_FOUND


async def test_a_taken_liveness_port_is_named(tmp_path: Path) -> None:
    plugin = a_plugin(tmp_path, ScriptedClaims())
    liveness = Liveness(registration=plugin.registration_socket, endpoint=plugin.endpoint)
    async with liveness.served(port=0) as port:
        with pytest.raises(Permanent, match=f"cannot serve liveness on port {port}"):
            async with liveness.served(port=port):
                pass
