"""A whole node agent in this process, on simulated hardware and an in-process API server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from nvdra_api.gates import FeatureGates
from nvdra_kube.resources import NODES, RESOURCE_CLAIMS, RESOURCE_SLICES
from nvdra_nodeagent.agent import GpuAgent
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.kubelet.proto import dra_v1_pb2
from nvdra_nodeagent.kubelet.proto.dra_v1_grpc import DRAPluginStub
from nvdra_nodeagent.program.metrics import AgentMetrics
from nvdra_nodeagent.program.options import parse_options
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.hardware import SimulatedHardware
from nvdra_testing.claims import NODE, a_claim_body, a_ref
from nvdra_testing.kubelet import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from nvdra_kube.api import Body
    from nvdra_nodeagent.hardware.ports import Machine

SETTLE_S = 50.0
"""No test is judged by the clock: machines stall. Much less than a test gets."""


class NodeUnderTest:
    """A node's directories, hardware and API; agents come and go on it."""

    def __init__(self, root: Path, *, profile: str = "h100") -> None:
        self.root = root
        self.store = ClusterStore()
        self.api = LocalApi(self.store)
        self.hardware = SimulatedHardware.open(profile, root / "machine", node=NODE)
        self.cdi_root = root / "cdi"
        self.agent: GpuAgent | None = None
        for name in ("plugins", "registry"):
            (root / name).mkdir()

    @property
    def plugin_dir(self) -> Path:
        return self.root / "plugins" / "gpu.nvidia.com"

    async def claim(
        self, *devices: str, name: str = "claim", config: Sequence[Body] = ()
    ) -> ClaimRef:
        """A claim in the API to which these devices are allocated."""
        body = a_claim_body(a_ref(name), *devices, config=config)
        request = {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}
        spec = {"devices": {"requests": [request]}}
        made = await self.api.create(RESOURCE_CLAIMS, {**body, "spec": spec, "status": {}})
        allocated = {**made, "status": body["status"]}
        await self.api.update(RESOURCE_CLAIMS, allocated, subresource="status")
        meta = made["metadata"]
        return ClaimRef(namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])

    async def prepared(self, *devices: str) -> ClaimRef:
        """A claim for these devices that an agent has prepared."""
        ref = await self.claim(*devices)
        assert (await self.prepare(ref))[ref.name].error == ""
        return ref

    async def devices(self) -> list[str]:
        """Names that stand in the API's slices now."""
        slices = (await self.api.list(RESOURCE_SLICES))["items"]
        return [device["name"] for body in slices for device in body["spec"].get("devices", ())]

    async def prepare(self, *refs: ClaimRef) -> dict[str, Any]:
        """The kubelet's call: entries of the answer by claim name."""
        return await self._call("NodePrepareResources", refs)

    async def unprepare(self, *refs: ClaimRef) -> dict[str, Any]:
        return await self._call("NodeUnprepareResources", refs)

    async def _call(self, method: str, refs: Sequence[ClaimRef]) -> dict[str, Any]:
        assert self.agent, "no agent is running"
        request = getattr(dra_v1_pb2, f"{method}Request")()
        for ref in refs:
            request.claims.add(namespace=ref.namespace, name=ref.name, uid=ref.uid)
        async with dial(self.agent.kubelet.endpoint) as channel:
            answer = await getattr(DRAPluginStub(channel), method)(request)
        return {ref.name: answer.claims[ref.uid] for ref in refs}

    @asynccontextmanager
    async def running(
        self, *, machine: Machine | None = None, gates: str = "", retry_budget_s: float = 0.3
    ) -> AsyncIterator[GpuAgent]:
        """An agent that has been started; stopped in order at the end.

        `retry_budget_s` bounds how long it tries what cannot work yet.
        """
        agent = self.agent = self._agent(machine, gates=gates, retry_budget_s=retry_budget_s)
        stop = asyncio.Event()
        task = asyncio.create_task(agent.run(stop), name="agent")
        try:
            await until(agent.kubelet.endpoint.exists, or_done=task)
            yield agent
        finally:
            stop.set()
            await task
            self.agent = None

    @asynccontextmanager
    async def publishing(self, **choices: Any) -> AsyncIterator[GpuAgent]:
        """As `running`, from when the slices stand in the API: the hardware is known then."""
        async with self.running(**choices) as agent:
            await agent.publisher.wait_published()
            yield agent

    @asynccontextmanager
    async def idle(self) -> AsyncIterator[GpuAgent]:
        """An agent that knows the hardware and does nothing by itself: no duties, no sockets."""
        agent = self._agent()
        await agent.keeper.refresh()
        await agent.claims.start()
        try:
            yield agent
        finally:
            await agent.claims.drain()
            agent.claims.close()
            agent._role_locks.close()

    def _agent(
        self, machine: Machine | None = None, *, gates: str = "", retry_budget_s: float = 0.3
    ) -> GpuAgent:
        return GpuAgent(
            self._options(),
            api=self.api,
            machine=machine or self.hardware.machine,
            gates=FeatureGates.parse(gates),
            metrics=AgentMetrics(driver="gpu.nvidia.com", node=NODE),
            boot_id="boot-1",
            retry_budget_s=retry_budget_s,
        )

    def _options(self) -> Any:
        flags = {
            "node-name": NODE,
            "cdi-root": self.cdi_root,
            "kubelet-plugins-directory-path": self.root / "plugins",
            "kubelet-registrar-directory-path": self.root / "registry",
        }
        argv = [f"--{name}={value}" for name, value in flags.items()]
        return parse_options(argv, environ={}, version="test")


async def a_node(root: Path, *, profile: str = "h100") -> NodeUnderTest:
    """A node that the API knows."""
    node = NodeUnderTest(root, profile=profile)
    await node.api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    return node


async def until(
    condition: Callable[[], object], *, or_done: asyncio.Task[None] | None = None
) -> None:
    """Return when `condition` holds; a task that ends meanwhile ends the wait with its error."""
    async with asyncio.timeout(SETTLE_S):
        while not condition():
            if or_done is not None and or_done.done():
                or_done.result()
            await asyncio.sleep(0.005)
