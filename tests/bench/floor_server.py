"""Program: what preparing a claim costs at the very least, with nothing decided or checked.

Serves the kubelet's DRA service: a prepare is one GET of the claim and two durable writes, of as
many bytes as the driver writes, in one hop to a thread; an unprepare removes both files durably.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpclib.server import Server

from nvdra_kube.logs import configure
from nvdra_kube.resources import RESOURCE_CLAIMS
from nvdra_kube.session import KubeSession
from nvdra_nodeagent.durable import remove_durably, write_durably
from nvdra_nodeagent.kubelet.proto import dra_v1_pb2 as messages
from nvdra_nodeagent.kubelet.proto.dra_v1_grpc import DRAPluginBase

from .child import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpclib.server import Stream

    from nvdra_kube.api import KubeApi

THREADS = 16


class Floor(DRAPluginBase):
    """The least that a driver has to do for a claim."""

    def __init__(self, api: KubeApi, *, root: Path, journal_bytes: int, cdi_bytes: int) -> None:
        self._api = api
        self._journal, self._cdi = root / "journal", root / "cdi"
        self._record, self._document = b"x" * journal_bytes, b"x" * cdi_bytes
        self._threads = ThreadPoolExecutor(THREADS)

    async def NodePrepareResources(self, stream: Stream[Any, Any]) -> None:
        request: Any = await stream.recv_message()
        answer = messages.NodePrepareResourcesResponse()
        for claim in request.claims:
            await self._api.get(RESOURCE_CLAIMS, claim.name, namespace=claim.namespace)
            await self._in_thread(self._write, claim.uid)
            device = messages.Device(request_names=["gpu"], device_name="gpu-0")
            answer.claims[claim.uid].devices.append(device)
        await stream.send_message(answer)

    async def NodeUnprepareResources(self, stream: Stream[Any, Any]) -> None:
        request: Any = await stream.recv_message()
        answer = messages.NodeUnprepareResourcesResponse()
        for claim in request.claims:
            await self._in_thread(self._remove, claim.uid)
            answer.claims[claim.uid].SetInParent()
        await stream.send_message(answer)

    async def _in_thread(self, work: Any, uid: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, work, uid)

    def _write(self, uid: str) -> None:
        write_durably(self._journal / f"{uid}.json", self._record)
        write_durably(self._cdi / f"{uid}.json", self._document)

    def _remove(self, uid: str) -> None:
        remove_durably(self._cdi / f"{uid}.json")
        remove_durably(self._journal / f"{uid}.json")


def main(argv: Sequence[str]) -> None:
    configure(verbosity=0)
    asyncio.run(_run(json.loads(argv[0])))


async def _run(arguments: dict[str, Any]) -> None:
    root = Path(arguments["root"])
    environ = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(arguments["port"]),
    }
    service_account_dir = Path(arguments["service_account_dir"])
    session = KubeSession.in_cluster(environ=environ, service_account_dir=service_account_dir)
    async with session as api:
        floor = Floor(
            api,
            root=root,
            journal_bytes=int(arguments["journal_bytes"]),
            cdi_bytes=int(arguments["cdi_bytes"]),
        )
        server = Server([floor])
        socket = root / "dra.sock"
        await server.start(path=str(socket))
        await serve({"socket": socket}, dict)
        server.close()
