"""A DRA driver that answers its kubelet from a script, at the level of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from nvdra_nodeagent.kubelet.proto import dra_v1_pb2 as v1
from nvdra_nodeagent.kubelet.proto import dra_v1beta1_pb2 as v1beta1
from nvdra_nodeagent.kubelet.proto import registration_pb2 as registration
from nvdra_nodeagent.kubelet.proto.dra_v1_grpc import DRAPluginBase
from nvdra_nodeagent.kubelet.proto.dra_v1beta1_grpc import DRAPluginBase as BetaPluginBase
from nvdra_nodeagent.kubelet.proto.registration_grpc import RegistrationBase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DRIVER = "gpu.example.com"
Answer = dict[str, Any]
"""Claim UID -> the fields of its result."""
Script = Callable[[Sequence[Any]], Answer]
"""From the claims of a request to the answer."""


@dataclass
class FakeDriver(RegistrationBase):
    """What it says is in its fields; what it was asked is in `calls` and `notified`."""

    name: str = DRIVER
    type: str = "DRAPlugin"
    versions: tuple[str, ...] = ("v1.DRAPlugin", "v1beta1.DRAPlugin")
    endpoint: str | None = None
    refuses: bool = False
    prepare: Script = field(default=lambda claims: {claim.uid: {} for claim in claims})
    unprepare: Script = field(default=lambda claims: {claim.uid: {} for claim in claims})
    calls: list[tuple[str, list[str]]] = field(default_factory=list)
    notified: list[tuple[bool, str]] = field(default_factory=list)
    asked: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    async def GetInfo(self, stream: Any) -> None:
        await stream.recv_message()
        self.asked += 1
        await stream.send_message(
            registration.PluginInfo(
                type=self.type,
                name=self.name,
                endpoint=self.endpoint,
                supported_versions=self.versions,
            )
        )

    async def NotifyRegistrationStatus(self, stream: Any) -> None:
        status = await stream.recv_message()
        self.notified.append((status.plugin_registered, status.error))
        if self.refuses:
            raise GRPCError(Status.UNKNOWN, "the driver does not want to")
        await stream.send_message(registration.RegistrationStatusResponse())

    async def answer(self, method: str, stream: Any, messages: Any) -> None:
        request = await stream.recv_message()
        self.calls.append((method, [claim.name for claim in request.claims]))
        await self.go_on.wait()
        script = self.prepare if method == "prepare" else self.unprepare
        kind = "Prepare" if method == "prepare" else "Unprepare"
        result = getattr(messages, f"Node{kind}ResourceResponse")
        claims = {uid: result(**fields) for uid, fields in script(request.claims).items()}
        await stream.send_message(getattr(messages, f"Node{kind}ResourcesResponse")(claims=claims))


class _V1(DRAPluginBase):
    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    async def NodePrepareResources(self, stream: Any) -> None:
        await self._driver.answer("prepare", stream, v1)

    async def NodeUnprepareResources(self, stream: Any) -> None:
        await self._driver.answer("unprepare", stream, v1)


class _V1beta1(BetaPluginBase):
    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    async def NodePrepareResources(self, stream: Any) -> None:
        self._driver.calls.append(("v1beta1", []))
        await self._driver.answer("prepare", stream, v1beta1)

    async def NodeUnprepareResources(self, stream: Any) -> None:
        await self._driver.answer("unprepare", stream, v1beta1)


@asynccontextmanager
async def serving(
    driver: FakeDriver, root: Path, *, socket: str = "reg.sock", dra: str = "dra.sock"
) -> AsyncIterator[FakeDriver]:
    """The driver's sockets `plugins_registry/<socket>` and `<dra>` below `root`, DRA first."""
    registry = root / "plugins_registry"
    registry.mkdir(parents=True, exist_ok=True)
    if driver.endpoint is None:
        driver.endpoint = str(root / dra)
    dra_server, registrar = Server([_V1(driver), _V1beta1(driver)]), Server([driver])
    await dra_server.start(path=str(root / dra))
    try:
        await registrar.start(path=str(registry / socket))
        try:
            yield driver
        finally:
            (registry / socket).unlink(missing_ok=True)
            registrar.close()
            await registrar.wait_closed()
    finally:
        (root / dra).unlink(missing_ok=True)
        driver.go_on.set()
        dra_server.close()
        await dra_server.wait_closed()


def a_device(name: str = "gpu-0", *requests: str, ids: tuple[str, ...] | None = None) -> Answer:
    """One device of a prepare result, as the fields of its message."""
    return {
        "request_names": list(requests),
        "pool_name": "pool",
        "device_name": name,
        "cdi_device_ids": list(ids if ids is not None else (f"example.com/gpu={name}",)),
    }
