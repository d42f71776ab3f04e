"""A node whose agent is a real process, with an API server in the test's; the test is its kubelet.

Nothing but the agent works here: no controller gives back claims that no pod uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grpclib.exceptions import GRPCError, StreamTerminatedError

from nvdra_api.names import GPU_DRIVER
from nvdra_kube.resources import NODES, RESOURCE_CLAIMS, RESOURCE_SLICES
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.kubelet.proto import dra_v1_pb2
from nvdra_nodeagent.kubelet.proto.dra_v1_grpc import DRAPluginStub
from nvdra_sim.cluster.access import ApiAccess
from nvdra_sim.cluster.agent_process import AgentProcess
from nvdra_sim.cluster.apiserver import ApiServer, ClusterStore, LocalApi
from nvdra_sim.cluster.node import AGENT_MODULE, MachineChoice, NodeDirectories
from nvdra_sim.hardware import SimulatedHardware
from nvdra_testing.claims import NODE, a_claim_body, a_ref
from nvdra_testing.kubelet import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from nvdra_kube.api import Body

PATIENCE_S = 120.0
NO_ANSWER: Final = "no answer"
_CALL_LIMIT_S: Final = 45.0
_STATE: Final = ("claims", "effects", "tombstones", "quarantine")


@dataclass(slots=True)
class ProcessNode:
    """Directories, API and hardware; `agent` is the one that was started last."""

    root: Path
    store: ClusterStore
    api: LocalApi
    server: ApiServer
    directories: NodeDirectories
    agent: AgentProcess | None = None
    own_mounts: bool = False

    @property
    def state_dir(self) -> Path:
        return self._seen(self.directories.plugins / GPU_DRIVER)

    @property
    def cdi_root(self) -> Path:
        return self._seen(self.directories.cdi)

    @property
    def socket(self) -> Path:
        return self.state_dir / "dra.sock"

    def hardware(self) -> SimulatedHardware:
        """The agent's machine, to be looked at and broken. Blocks for a moment."""
        return SimulatedHardware.open("h100", self.directories.machine, node=NODE)

    async def claim(self, *devices: str | Body, name: str, config: Sequence[Body] = ()) -> ClaimRef:
        """A claim in the API to which these devices are allocated."""
        body = a_claim_body(a_ref(name), *devices, config=config)
        request = {"name": "gpu", "exactly": {"deviceClassName": GPU_DRIVER}}
        spec = {"devices": {"requests": [request]}}
        made = await self.api.create(RESOURCE_CLAIMS, {**body, "spec": spec, "status": {}})
        allocated = {**made, "status": body["status"]}
        await self.api.update(RESOURCE_CLAIMS, allocated, subresource="status")
        meta = made["metadata"]
        return ClaimRef(namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])

    async def prepare(self, *refs: ClaimRef) -> dict[str, str]:
        """The kubelet's call; the error of each claim by name, "" for a success."""
        return await self._call("NodePrepareResources", refs)

    async def unprepare(self, *refs: ClaimRef) -> dict[str, str]:
        return await self._call("NodeUnprepareResources", refs)

    async def devices(self) -> list[str]:
        """Names that stand in the API's slices now."""
        slices = (await self.api.list(RESOURCE_SLICES))["items"]
        return [device["name"] for body in slices for device in body["spec"].get("devices", ())]

    async def wait_devices(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(await self.devices()) != count:
                await asyncio.sleep(0.01)

    def cdi_files(self) -> list[str]:
        """All in the CDI directory, files in the making too."""
        return sorted(os.listdir(self.cdi_root))  # noqa: PTH208

    def leftovers(self) -> list[str]:
        """What claims have left on the node: CDI files, records, effects and the like."""
        folders = [self.state_dir / name for name in _STATE]
        found = [str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()]
        return sorted([*self.cdi_files(), *found])

    @asynccontextmanager
    async def running(self, *flags: str, small_disk: str = "") -> AsyncIterator[AgentProcess]:
        """An agent, started again when it ends by itself; SIGTERM in the end.

        `small_disk` is a directory, `state` or `cdi`, in whose place this agent has a disk of
        64 KiB; needs namespaces.
        """
        disks = {"state": self.directories.plugins / GPU_DRIVER, "cdi": self.directories.cdi}
        wrapper = _on_small_disk(disks[small_disk]) if small_disk else []
        access = ApiAccess(
            host="127.0.0.1",
            port=self.server.port,
            service_account_dir=self.root / "serviceaccount",
        )
        process = self.agent = AgentProcess(
            module=AGENT_MODULE,
            arguments=[
                *self.directories.agent_arguments(NODE, MachineChoice(profile="h100")),
                *("--service-account-dir", str(access.service_account_dir)),
                *flags,
            ],
            environ=access.environ_in(os.environ),
            log_file=self.directories.agent_log,
            wrapper=wrapper,
        )
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()  # of one that was killed
        self.own_mounts = bool(small_disk)
        task = asyncio.create_task(process.run(), name="agent process")
        try:
            await until(lambda: process.hopeless.is_set() or (process.pid and self.socket.exists()))
            if process.hopeless.is_set():
                raise RuntimeError(process.last_lines())
            yield process
        finally:
            task.cancel()
            await asyncio.wait([task])
            self.own_mounts = False

    def _seen(self, path: Path) -> Path:
        """The path of what the agent has at `path`."""
        if not self.own_mounts:
            return path
        assert self.agent is not None
        return Path(f"/proc/{self.agent.pid}/root{path}")

    async def _call(self, method: str, refs: Sequence[ClaimRef]) -> dict[str, str]:
        request = getattr(dra_v1_pb2, f"{method}Request")()
        for ref in refs:
            request.claims.add(namespace=ref.namespace, name=ref.name, uid=ref.uid)
        try:
            async with dial(self.socket) as channel:
                call = getattr(DRAPluginStub(channel), method)
                answer = await call(request, timeout=_CALL_LIMIT_S)
        except (OSError, GRPCError, StreamTerminatedError):
            return {ref.name: NO_ANSWER for ref in refs}
        given = {uid: entry.error for uid, entry in answer.claims.items()}
        return {ref.name: given.get(ref.uid, NO_ANSWER) for ref in refs}


def _on_small_disk(directory: Path) -> list[str]:
    """A command that becomes another one, with a disk of its own mounted there."""
    directory.mkdir(exist_ok=True)
    mount = 'mount -t tmpfs -o size=64k tmpfs "$1" || exit 77; shift; exec "$@"'
    namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
    return [*namespaces, "sh", "-c", mount, "sh", str(directory)]


@asynccontextmanager
async def a_process_node(root: Path) -> AsyncIterator[ProcessNode]:
    """A node that the API knows, and no agent yet."""
    store = ClusterStore()
    api = LocalApi(store)
    await api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    directories = NodeDirectories(root / "n")
    directories.create()
    async with ApiServer(store) as server:
        account = root / "serviceaccount"
        account.mkdir()
        (account / "ca.crt").write_text(server.ca_pem)
        (account / "token").write_text(server.token)
        yield ProcessNode(root, store, api, server, directories)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)
