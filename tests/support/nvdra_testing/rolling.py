"""A node whose driver is rolled: agents as processes with sockets of their own, pods that churn."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nvdra_api.names import GPU_DRIVER
from nvdra_kube.resources import (
    EVENTS,
    NODES,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
)
from nvdra_sim.cluster.embedded import ClusterPlan, embedded_cluster
from nvdra_sim.cluster.kubelet import ImageStore
from nvdra_sim.cluster.node import AgentSetup, MachineChoice, SimulatedNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from nvdra_sim.cluster.agent_process import AgentProcess
    from nvdra_sim.cluster.embedded import EmbeddedCluster

NAME = "rolling-1"
NAMESPACE = "default"
PATIENCE_S = 180.0
_TEMPLATE = "one-gpu"


@dataclass
class RollingAgent:
    """One pod's agent. It ends at the end of `RollingNode.agent`, or when it is killed."""

    pod_uid: str
    process: AgentProcess
    task: asyncio.Task[None]

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self.task.cancel()
        await asyncio.wait([self.task])

    async def kill(self) -> None:
        """SIGKILL, and nobody starts it again."""
        self.process.kill()
        await self.stop()

    def log(self) -> str:
        return self.process.log_file.read_text()


@dataclass
class RollingNode:
    """One node of an embedded cluster. `writes` are the changes of slices seen by a watch."""

    cluster: EmbeddedCluster
    node: SimulatedNode
    writes: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def agent(
        self, pod_uid: str, *flags: str, profile: str = "h100", rolling: bool = True
    ) -> AsyncIterator[RollingAgent]:
        """A new pod's agent that the kubelet has registered."""
        machine = MachineChoice(profile=profile)
        made = self.node.agent(AgentSetup(machine, self.cluster.access))
        own = ("--rolling-update", "true", "--pod-uid", pod_uid) if rolling else ()
        process = replace(
            made,
            arguments=[*made.arguments, *own, *flags],
            log_file=self.node.directories.root / f"{pod_uid}.log",
        )
        agent = RollingAgent(pod_uid, process, asyncio.create_task(process.run(), name=pod_uid))
        try:
            socket = f"dra-{pod_uid}.sock" if rolling else "dra.sock"
            await until(lambda: self.calls_go_to() == socket)
            yield agent
        finally:
            await agent.stop()

    def calls_go_to(self) -> str:
        """Name of the socket that the kubelet would call now; "" for none."""
        client = self.node.kubelet.plugins.client(GPU_DRIVER)
        return client.endpoint.rpartition("/")[2] if client and client.connected else ""

    async def wait_in_charge(self, agent: RollingAgent) -> None:
        """Until this agent has said last of all that it has the role."""
        await until(
            lambda: agent.log().rfind("taking charge") > agent.log().rfind("leaving slices")
        )

    async def wait_devices(self, count: int) -> None:
        async def enough() -> bool:
            return len(await self.devices()) == count

        async with asyncio.timeout(PATIENCE_S):
            while not await enough():
                await asyncio.sleep(0.02)

    async def devices(self) -> list[str]:
        slices = (await self.cluster.api.list(RESOURCE_SLICES))["items"]
        return [device["name"] for body in slices for device in body["spec"].get("devices", ())]

    async def pod(self, name: str, script: str = "true") -> str:
        """Run a pod with a GPU of its own to its end and delete it; returns its phase."""
        api = self.cluster.api
        await api.create(PODS, a_pod(name, script))
        phase = ""
        async with asyncio.timeout(PATIENCE_S):
            while phase not in ("Succeeded", "Failed"):
                await asyncio.sleep(0.02)
                body = await api.get(PODS, name, namespace=NAMESPACE)
                phase = body.get("status", {}).get("phase", "")
            await api.delete(PODS, name, namespace=NAMESPACE, grace_period_s=0)
        return phase

    async def warnings(self) -> list[str]:
        """What the kubelet has complained of, where claims are concerned."""
        events = (await self.cluster.api.list(EVENTS))["items"]
        return [event["message"] for event in events if event["reason"].endswith("Resources")]

    async def wait_no_claims(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (await self.cluster.api.list(RESOURCE_CLAIMS))["items"]:
                await asyncio.sleep(0.05)

    def leftovers(self) -> list[str]:
        """CDI files and records of claims."""
        directories = self.node.directories
        records = (directories.plugins / GPU_DRIVER / "claims").glob("*.json")
        return [path.name for path in (*directories.cdi.iterdir(), *records)]

    @asynccontextmanager
    async def churning(self, loops: int = 3) -> AsyncIterator[Churn]:
        """Pods that come and go, in as many loops, until the end of the context."""
        churn = Churn()
        churn.tasks = [
            asyncio.create_task(self._churn(churn, number), name=f"churn {number}")
            for number in range(loops)
        ]
        try:
            yield churn
        finally:
            await churn.end()

    async def _churn(self, churn: Churn, number: int) -> None:
        turn = 0
        while not churn.over:
            turn += 1
            churn.phases.append(await self.pod(f"pod-{number}-{turn}"))

    async def _watch_slices(self) -> None:
        revision = (await self.cluster.api.list(RESOURCE_SLICES))["metadata"]["resourceVersion"]
        async for event in self.cluster.api.watch(RESOURCE_SLICES, resource_version=revision):
            if event.type in ("ADDED", "MODIFIED", "DELETED"):
                self.writes.append(event.type)


@dataclass
class Churn:
    """`phases` in which the pods have ended so far."""

    phases: list[str] = field(default_factory=list)
    over: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def end(self) -> None:
        """Let the pods that are there end. Raises what a loop has failed with."""
        self.over = True
        await asyncio.gather(*self.tasks)

    async def more(self, count: int) -> None:
        """Until so many more pods have ended."""
        goal = len(self.phases) + count
        await until(lambda: len(self.phases) >= goal or any(task.done() for task in self.tasks))


@asynccontextmanager
async def a_rolling_node(root: Path) -> AsyncIterator[RollingNode]:
    """A cluster with one node and no agent yet."""
    async with embedded_cluster(ClusterPlan(nodes=0), root=root) as cluster:
        directory = root / "n1"
        node = SimulatedNode(
            name=NAME, root=directory, api=cluster.api, images=ImageStore(root / "images")
        )
        made = RollingNode(cluster, node)
        await cluster.api.create(RESOURCE_CLAIM_TEMPLATES, _template())
        tasks = [
            asyncio.create_task(node.kubelet.run(), name="kubelet"),
            asyncio.create_task(made._watch_slices(), name="watch"),
        ]
        try:
            # As on a real node: no pod, and so no agent, before the node is registered.
            async with asyncio.timeout(PATIENCE_S):
                while NAME not in await _names(cluster):
                    await asyncio.sleep(0.02)
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _names(cluster: EmbeddedCluster) -> list[str]:
    """Nodes whose kubelet has said which version it is."""
    nodes = (await cluster.api.list(NODES))["items"]
    return [node["metadata"]["name"] for node in nodes if "nodeInfo" in node.get("status", {})]


def a_pod(name: str, script: str) -> dict[str, Any]:
    claim = {"name": "gpu", "resourceClaimTemplateName": _TEMPLATE}
    container = {
        "name": "main",
        "image": "ubuntu:24.04",
        "command": ["sh", "-c", script],
        "resources": {"claims": [{"name": "gpu"}]},
    }
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"restartPolicy": "Never", "containers": [container], "resourceClaims": [claim]},
    }


def _template() -> dict[str, Any]:
    request = {"name": "gpu", "exactly": {"deviceClassName": GPU_DRIVER}}
    return {
        "metadata": {"name": _TEMPLATE, "namespace": NAMESPACE},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(FileNotFoundError):
                if condition():
                    return
            await asyncio.sleep(0.02)
