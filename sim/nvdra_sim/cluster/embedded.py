"""A cluster in one process: API server, scheduler, controllers, kubelets; agents beside it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import structlog
import yaml

from nvdra_kube.resources import DEVICE_CLASSES, NODES, RESOURCE_SLICES
from nvdra_sim.cluster.apiserver import ApiServer, ClusterStore, LocalApi
from nvdra_sim.cluster.controllers import ControllerManager
from nvdra_sim.cluster.kubelet import ImageStore
from nvdra_sim.cluster.node import (
    AGENT_MODULE,
    ApiAccess,
    MachineChoice,
    NodeDirectories,
    SimulatedNode,
)
from nvdra_sim.cluster.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from nvdra_sim.cluster.agent_process import AgentProcess

log = structlog.get_logger(__name__)

GPU_DRIVER = "gpu.nvidia.com"
NODE_BY_HAND = "node-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """What to start. `nodes` may be 0: a control plane alone."""

    nodes: int = 1
    machine: MachineChoice = field(default_factory=MachineChoice)
    feature_gates: str = ""


class ClusterNotReady(Exception):
    """A part of the cluster did not come up; the text says which, and shows its last words."""


class ClusterBroken(Exception):
    """A part of the cluster ended while it was in use; the text says which, and why."""


@dataclass(slots=True)
class EmbeddedCluster:
    """A running cluster; made by `embedded_cluster()`. Everything it wrote lies below `root`."""

    root: Path
    store: ClusterStore
    api: LocalApi
    server: ApiServer
    machine: MachineChoice
    nodes: list[SimulatedNode]
    agents: dict[str, AgentProcess] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    async def wait_ready(self, *, timeout_s: float) -> None:
        """Until every node's driver is registered and its slices stand in the API.

        Raises `ClusterNotReady` after `timeout_s`, or when an agent ends again and again.
        """
        for node in self.nodes:
            agent = self.agents[node.name]
            ready = asyncio.create_task(self._wait_node(node), name=f"{node.name} ready")
            hopeless = asyncio.create_task(agent.hopeless.wait(), name=f"{node.name} hopeless")
            try:
                await asyncio.wait(
                    (ready, hopeless), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not ready.done():
                    what = f"ended {agent.starts} times" if hopeless.done() else "is not ready"
                    raise ClusterNotReady(self._not_ready(node, what))
                await ready
            finally:
                ready.cancel()
                hopeless.cancel()
                await asyncio.gather(ready, hopeless, return_exceptions=True)

    async def _wait_node(self, node: SimulatedNode) -> None:
        await node.kubelet.wait_registered(GPU_DRIVER)
        await self._wait_slices(node.name)

    async def inventory(self) -> dict[str, dict[str, int]]:
        """How many devices of which product each node offers."""
        found: dict[str, dict[str, int]] = {node.name: {} for node in self.nodes}
        for body in (await self.api.list(RESOURCE_SLICES))["items"]:
            products = found.setdefault(body["spec"].get("nodeName", ""), {})
            for device in body["spec"].get("devices", ()):
                attributes = device["attributes"]
                label = attributes.get("profile", attributes.get("productName", {}))
                name = label.get("string", "device")
                products[name] = products.get(name, 0) + 1
        return found

    def command_by_hand(self) -> list[str]:
        """An agent's command line, for a cluster without nodes."""
        directories = NodeDirectories(self.root / "by-hand")
        # Beside the interpreter: whoever runs `.venv/bin/nvdra` need not have it in PATH.
        beside = Path(sys.executable).with_name("nvdra-gpu-plugin")
        program = [str(beside)] if beside.exists() else [sys.executable, "-m", AGENT_MODULE]
        return [
            *program,
            *directories.agent_arguments(NODE_BY_HAND, self.machine),
            *("--kubeconfig", str(self.kubeconfig)),
        ]

    async def _wait_slices(self, node: str) -> None:
        selector = f"spec.driver={GPU_DRIVER},spec.nodeName={node}"
        listed = await self.api.list(RESOURCE_SLICES, field_selector=selector)
        if listed["items"]:
            return
        revision = listed["metadata"]["resourceVersion"]
        async for event in self.api.watch(
            RESOURCE_SLICES, resource_version=revision, field_selector=selector
        ):
            if event.type == "ADDED":
                return

    def _not_ready(self, node: SimulatedNode, what: str) -> str:
        last = self.agents[node.name].last_lines()
        if not last:
            return f"the driver on {node.name} {what} and wrote no log; is {self.root} full?"
        return f"the driver on {node.name} {what}; the end of its log:\n{last}"


@asynccontextmanager
async def embedded_cluster(plan: ClusterPlan, *, root: Path) -> AsyncIterator[EmbeddedCluster]:
    """Start everything that `plan` names; all of it has ended when the context is left.

    Agents may still be starting: `wait_ready()` waits for them. Raises `ClusterBroken`.
    """
    async with AsyncExitStack() as stack:
        store = ClusterStore()
        api = LocalApi(store)
        nodes: list[SimulatedNode] = []
        server = await stack.enter_async_context(ApiServer(store, pod_logs=partial(_logs, nodes)))
        cluster = EmbeddedCluster(root, store, api, server, plan.machine, nodes)
        _write_access(cluster)
        await _install(api)
        if not plan.nodes:
            await _prepare_node_by_hand(cluster)
        tasks = await stack.enter_async_context(_Tasks())
        tasks.start("scheduler", Scheduler(api).run)
        tasks.start("controllers", ControllerManager(api).run)
        _add_nodes(cluster, plan, tasks)
        yield cluster


def _logs(nodes: Sequence[SimulatedNode], namespace: str, pod: str, container: str) -> str:
    """What the pod's kubelet kept of a container's output. Raises `LookupError`."""
    for node in nodes:
        for name in node.kubelet.containers(namespace, pod):
            if container in ("", name):
                return node.kubelet.logs(namespace, pod, name)
    raise LookupError(f"no container {container!r} of pod {namespace}/{pod} has run")


def _add_nodes(cluster: EmbeddedCluster, plan: ClusterPlan, tasks: _Tasks) -> None:
    images = ImageStore(cluster.root / "images")
    access = ApiAccess(
        host="127.0.0.1",
        port=cluster.server.port,
        service_account_dir=cluster.root / "serviceaccount",
    )
    for number in range(1, plan.nodes + 1):
        name = f"node-{number}"
        node = SimulatedNode(
            name=name, root=cluster.root / f"n{number}", api=cluster.api, images=images
        )
        agent = node.agent(machine=plan.machine, access=access, feature_gates=plan.feature_gates)
        cluster.nodes.append(node)
        cluster.agents[name] = agent
        tasks.start(f"kubelet {name}", node.kubelet.run)
        tasks.start(f"agent {name}", agent.run)


def _write_access(cluster: EmbeddedCluster) -> None:
    directory = cluster.root / "serviceaccount"
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_text(cluster.server.ca_pem)
    (directory / "token").write_text(cluster.server.token)
    (directory / "namespace").write_text("dra-driver-nvidia-gpu")
    cluster.kubeconfig.write_text(cluster.server.kubeconfig())
    cluster.kubeconfig.chmod(0o600)


async def _prepare_node_by_hand(cluster: EmbeddedCluster) -> None:
    """An agent needs its Node object and its directories, also where no kubelet makes them."""
    NodeDirectories(cluster.root / "by-hand").create()
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_BY_HAND}}
    await cluster.api.create(NODES, node)


async def _install(api: LocalApi) -> None:
    """The objects that the driver's installation brings."""
    text = (resources.files("nvdra_sim.cluster") / "install" / "deviceclasses.yaml").read_text()
    for body in yaml.safe_load_all(text):
        await api.create(DEVICE_CLASSES, body)


class _Tasks:
    """Eternal tasks with names. All end with the context, and it with the first that ends."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._owner: asyncio.Task[Any] | None = None
        self._ended: asyncio.Task[None] | None = None

    def start(self, name: str, run: Callable[[], Any]) -> None:
        task = asyncio.create_task(run(), name=name)
        task.add_done_callback(self._end)
        self._tasks.append(task)

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        return self

    async def __aexit__(self, *_: object) -> None:
        """All at once: nothing of the cluster outlives it, so no order matters.

        Raises `ClusterBroken` in place of the cancellation that a part's end led to.
        """
        owner, self._owner = self._owner, None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if owner is not None and self._ended is not None:
            owner.uncancel()
            cause = self._ended.exception()
            raise ClusterBroken(f"{self._ended.get_name()} ended: {_told(cause)}") from cause

    def _end(self, task: asyncio.Task[None]) -> None:
        """Without one of its parts a cluster would only stand still, and nobody know why."""
        if task.cancelled() or self._owner is None or self._ended is not None:
            return
        log.error("a part of the cluster ended", part=task.get_name(), exc_info=task.exception())
        self._ended = task
        self._owner.cancel()


def _told(cause: BaseException | None) -> str:
    """The first cause: groups of exceptions say nothing themselves."""
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return f"{type(cause).__name__}: {cause}" if cause else "without an error"
