"""Nodes whose agents are whole ones, in this process, and around which everything is played.

A node's kubelet asks for the claims and tells of the daemon's pod, its daemon says that it is ready
as soon as it knows its place among its peers. Nothing is pulled, started or probed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from nvdra_api.names import LABEL_COMPUTE_DOMAIN
from nvdra_kube.resources import NODES
from nvdra_nodeagent.errors import AgentError
from nvdra_sim.hardware import SimulatedHardware
from nvdra_testing.domain_nodes import DomainNode

from .domain_states import NODES_PER_CLIQUE
from .traffic import MeteredApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.computedomain.agent import DomainAgent
    from nvdra_testing.compute_domains import DomainCluster

_CLUSTER: Final = "6e766472-6120-5369-6d75-6c6174656420"
_STARTING_AT_ONCE: Final = 16
PATIENCE_S: Final = 1800.0
"""All nodes share the cores of one machine: what takes so long here is no failure."""


class PlayedNode:
    """`traffic` is what its agent said and heard."""

    def __init__(
        self, it: DomainCluster, root: Path, *, number: int, hardware: SimulatedHardware
    ) -> None:
        self._it = it
        self._ip = f"10.0.{number >> 8}.{number & 255}"
        self._pause_s = 0.01
        api = MeteredApi(it.api)
        self.traffic = api.traffic
        self.node = DomainNode(root, it, name=f"node-{number}", hardware=hardware, api=api)
        self.joined, self.left = asyncio.Event(), asyncio.Event()
        self.ready_s = self.released_s = 0.0
        self._agent: DomainAgent | None = None
        self._channel: ClaimRef | None = None
        self._daemon: tuple[Body, ClaimRef] | None = None

    async def run(
        self, turn: asyncio.Semaphore, up: asyncio.Event, stop: asyncio.Event, *, budget_s: float
    ) -> None:
        """An agent until `stop` that waits for `budget_s` in each call; `up`: it serves."""
        await turn.acquire()
        async with self.node.running(retry_budget_s=budget_s) as self._agent:
            turn.release()
            up.set()
            await stop.wait()

    async def published(self) -> None:
        """Return when the agent's slice is in the API."""
        assert self._agent
        await self._agent.publisher.wait_published()

    async def work(self, uid: str, *, of: int, daemon_after_s: float) -> None:
        """A workload's pod is released, by a daemon that comes; `of` as many nodes do the same."""
        self._pause_s = 0.01 + of * 2e-4
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._workload(uid))
            tasks.create_task(self._run_daemon(uid, daemon_after_s))

    async def leave(self) -> None:
        """The workload's pod ends, and so the daemon's."""
        assert self._agent and self._channel and self._daemon
        await self._agent.claims.unprepare([self._channel])
        await self.left.wait()
        pod, claim = self._daemon
        await self._it.remove(pod)
        await self._agent.claims.unprepare([claim])

    async def _workload(self, uid: str) -> None:
        self._channel = await self.node.channel(uid, f"workload-{self.node.name}")
        await self._prepare(self._channel)
        self.released_s = asyncio.get_running_loop().time()

    async def _run_daemon(self, uid: str, after_s: float) -> None:
        await self.joined.wait()
        await asyncio.sleep(after_s)
        pod = await self._it.daemon(self.node.name, uid)
        claim = await self.node.daemon(uid, pod=pod)
        self._daemon = pod, claim
        await self._prepare(claim)
        await self._it.report(pod, ip=self._ip, ready=False)
        while self.node.peers(uid).get("ownIndex") is None:
            await asyncio.sleep(self._pause_s)
        self.ready_s = asyncio.get_running_loop().time()
        await asyncio.to_thread(self.node.say, uid)
        await self._it.report(pod, ip=self._ip, ready=True)

    async def _prepare(self, ref: ClaimRef) -> None:
        """Ask until it is done, as kubelets do."""
        assert self._agent
        while isinstance((await self._agent.claims.prepare([ref]))[ref.uid], AgentError):
            await asyncio.sleep(self._pause_s)


@asynccontextmanager
async def a_fleet(
    it: DomainCluster, root: Path, *, size: int, budget_s: float
) -> AsyncIterator[list[PlayedNode]]:
    """So many nodes, in cliques of 18; their agents serve and have published."""
    hardware = [_a_clique(root, number) for number in range(-(-size // NODES_PER_CLIQUE))]
    fleet = [
        PlayedNode(it, root, number=number, hardware=hardware[number // NODES_PER_CLIQUE])
        for number in range(size)
    ]
    turn, stop = asyncio.Semaphore(_STARTING_AT_ONCE), asyncio.Event()
    ups = [asyncio.Event() for _ in fleet]
    async with asyncio.TaskGroup() as tasks:
        for played, up in zip(fleet, ups, strict=True):
            run = played.run(turn, up, stop, budget_s=budget_s)
            tasks.create_task(run, name=played.node.name)
        watch = tasks.create_task(_follow_labels(it, {each.node.name: each for each in fleet}))
        try:
            for played, up in zip(fleet, ups, strict=True):
                await up.wait()
                await played.published()
            yield fleet
        finally:
            watch.cancel()
            stop.set()


def _a_clique(root: Path, number: int) -> SimulatedHardware:
    """The hardware of all nodes of a clique: they differ in nothing that counts here."""
    found = SimulatedHardware.open("gb200", root / f"machine-{number}", node="node")
    found.set_fabric(clique=number + 1, cluster=_CLUSTER)
    return found


async def _follow_labels(it: DomainCluster, fleet: dict[str, PlayedNode]) -> None:
    """What makes the DaemonSet controller start a daemon on a node, and end it."""
    version = (await it.api.list(NODES))["metadata"]["resourceVersion"]
    async for event in it.api.watch(NODES, resource_version=version, timeout_s=PATIENCE_S):
        meta = event.object["metadata"]
        played = fleet.get(meta.get("name", ""))
        if played and LABEL_COMPUTE_DOMAIN in (meta.get("labels") or {}):
            played.joined.set()
        elif played and played.joined.is_set():
            played.left.set()
