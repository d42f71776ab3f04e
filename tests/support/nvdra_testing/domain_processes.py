"""Agents of ComputeDomains as processes on one node; the test calls them, as the kubelet would.

A simulated kubelet only registers them. Claims, daemons and files are those of a `DomainNode`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nvdra_api.names import COMPUTE_DOMAIN_DRIVER
from nvdra_kube.resources import NODES
from nvdra_nodeagent.kubelet.proto import dra_v1_pb2
from nvdra_nodeagent.kubelet.proto.dra_v1_grpc import DRAPluginStub
from nvdra_sim.cluster.access import ApiAccess
from nvdra_sim.cluster.apiserver import ApiServer
from nvdra_sim.cluster.kubelet import ImageStore
from nvdra_sim.cluster.node import AgentSetup, MachineChoice, SimulatedNode
from nvdra_testing.domain_nodes import DomainNode
from nvdra_testing.kubelet import dial
from nvdra_testing.rolling import PATIENCE_S, RollingAgent, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_testing.compute_domains import DomainCluster

_CALL_LIMIT_S = 45.0
_PUT_OFF = "[DomainNotReady]", "[ClaimBusy]"


@dataclass
class DomainProcesses:
    """Starts agents on `node`, on the hardware `profile`."""

    node: DomainNode
    simulated: SimulatedNode
    access: ApiAccess
    profile: str

    @asynccontextmanager
    async def agent(self, pod_uid: str = "", *flags: str) -> AsyncIterator[RollingAgent]:
        """One that the kubelet has registered; with a pod's UID, one beside others."""
        setup = AgentSetup(MachineChoice(profile=self.profile), self.access)
        made = self.simulated.domain_agent(setup, flags=flags)
        own = ("--rolling-update", "true", "--pod-uid", pod_uid) if pod_uid else ()
        log = self.node.root / f"{pod_uid or 'agent'}.log"
        process = replace(made, arguments=[*made.arguments, *own], log_file=log)
        task = asyncio.create_task(process.run(), name=f"agent {pod_uid}")
        agent = RollingAgent(pod_uid, process, task)
        try:
            socket = self._socket(pod_uid)
            await until(lambda: process.hopeless.is_set() or self.calls_go_to() == socket)
            if process.hopeless.is_set():
                raise RuntimeError(process.last_lines(20))
            yield agent
        finally:
            await agent.stop()

    def calls_go_to(self) -> str:
        """Name of the socket that the kubelet would call now; "" for none."""
        client = self.simulated.kubelet.plugins.client(COMPUTE_DOMAIN_DRIVER)
        return client.endpoint.rpartition("/")[2] if client and client.connected else ""

    async def wait_in_charge(self, agent: RollingAgent) -> None:
        """Until this agent has said last of all that it has the role."""
        await until(
            lambda: agent.log().rfind("taking charge") > agent.log().rfind("leaving slices")
        )

    async def prepare(self, ref: ClaimRef, *, by: str = "") -> str:
        """Have the agent of that pod do it; its error, "" for none."""
        return await self._call("NodePrepareResources", ref, by)

    async def prepared_at_last(self, ref: ClaimRef, *, by: str = "") -> None:
        """Ask as often as the kubelet would: others may take longer than one call can wait."""
        async with asyncio.timeout(PATIENCE_S):
            while (error := await self.prepare(ref, by=by)).endswith(_PUT_OFF):
                pass
        assert error == ""

    async def unprepare(self, ref: ClaimRef, *, by: str = "") -> str:
        return await self._call("NodeUnprepareResources", ref, by)

    def records(self) -> list[str]:
        """What claims have left in the agents' state."""
        folders = [self.node.state_dir / name for name in ("claims", "tombstones", "quarantine")]
        return [path.name for each in folders if each.is_dir() for path in each.iterdir()]

    async def _call(self, method: str, ref: ClaimRef, by: str) -> str:
        request = getattr(dra_v1_pb2, f"{method}Request")()
        request.claims.add(namespace=ref.namespace, name=ref.name, uid=ref.uid)
        async with dial(self.node.state_dir / self._socket(by)) as channel:
            call = getattr(DRAPluginStub(channel), method)
            answer = await call(request, timeout=_CALL_LIMIT_S)
        return str(answer.claims[ref.uid].error)

    @staticmethod
    def _socket(pod_uid: str) -> str:
        return f"dra-{pod_uid}.sock" if pod_uid else "dra.sock"


@asynccontextmanager
async def domain_processes(
    root: Path, it: DomainCluster, *, profile: str = "gb200"
) -> AsyncIterator[DomainProcesses]:
    """A registered node without an agent."""
    node = DomainNode(root, it, profile=profile)
    await it.node(node.name)
    simulated = SimulatedNode(
        name=node.name, root=node.root, api=it.api, images=ImageStore(root / "images")
    )
    account = root / "account"
    account.mkdir()
    async with ApiServer(it.store) as server:
        (account / "ca.crt").write_text(server.ca_pem)
        (account / "token").write_text(server.token)
        access = ApiAccess(host="127.0.0.1", port=server.port, service_account_dir=account)
        kubelet = asyncio.create_task(simulated.kubelet.run(), name="kubelet")
        try:
            await it.until(lambda: _version(it, node.name))
            yield DomainProcesses(node, simulated, access, profile)
        finally:
            kubelet.cancel()
            await asyncio.gather(kubelet, return_exceptions=True)


async def _version(it: DomainCluster, node: str) -> str:
    """Which the agents ask for; the kubelet tells it."""
    status = (await it.api.get(NODES, node)).get("status") or {}
    return str((status.get("nodeInfo") or {}).get("kubeletVersion") or "")
