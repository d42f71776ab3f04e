"""A cluster in one process: API server, scheduler, controllers, kubelets; agents beside it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING

import yaml

from nvdra_api.names import COMPUTE_DOMAIN_DRIVER, GPU_DRIVER, NAMESPACE
from nvdra_kube.resources import DEVICE_CLASSES, NAMESPACES, RESOURCE_SLICES
from nvdra_sim.cluster import by_hand
from nvdra_sim.cluster.access import ApiAccess
from nvdra_sim.cluster.apiserver import ApiServer, ClusterStore, LocalApi
from nvdra_sim.cluster.controllers import ControllerManager
from nvdra_sim.cluster.domains import controllers, install_definitions
from nvdra_sim.cluster.kubelet import ImageStore
from nvdra_sim.cluster.kubelet.driver_image import driver_images
from nvdra_sim.cluster.node import AgentSetup, MachineChoice, SimulatedNode
from nvdra_sim.cluster.node_lifecycle import mark_reachable, mark_unreachable
from nvdra_sim.cluster.parts import ClusterBroken, Parts
from nvdra_sim.cluster.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence
    from pathlib import Path

    from nvdra_sim.cluster.agent_process import AgentProcess
    from nvdra_sim.cluster.domains import ControllerProcess, DomainPlan
    from nvdra_sim.cluster.kubelet.container import ContainerRuntime

__all__ = ["ClusterBroken", "ClusterNotReady", "ClusterPlan", "EmbeddedCluster", "embedded_cluster"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """What to start. `nodes` may be 0: a control plane alone.

    `gpus` False leaves the GPU driver out, `compute_domains` None the controller and the driver of
    ComputeDomains; the API serves them all the same. `runtime` runs containers; by default what the
    machine allows does.
    """

    nodes: int = 1
    machine: MachineChoice = field(default_factory=MachineChoice)
    feature_gates: str = ""
    gpus: bool = True
    compute_domains: DomainPlan | None = None
    runtime: ContainerRuntime | None = None


class ClusterNotReady(Exception):
    """A part of the cluster did not come up; the text says which, and shows its last words."""


@dataclass(slots=True)
class EmbeddedCluster:
    """A running cluster; made by `embedded_cluster()`. Everything it wrote lies below `root`.

    `agents` serve GPUs, `domain_agents` ComputeDomains, both by node.
    """

    root: Path
    plan: ClusterPlan
    store: ClusterStore
    api: LocalApi
    server: ApiServer
    nodes: list[SimulatedNode]
    access: ApiAccess
    images: ImageStore
    parts: Parts
    agents: dict[str, AgentProcess] = field(default_factory=dict)
    domain_agents: dict[str, AgentProcess] = field(default_factory=dict)
    controllers: list[ControllerProcess] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    def node(self, name: str) -> SimulatedNode:
        """Raises `KeyError`."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    async def wait_ready(self, *, timeout_s: float) -> None:
        """Until every node's drivers are registered and their slices stand in the API, and the
        controllers work.

        Raises `ClusterNotReady` after `timeout_s`, or when a program ends again and again.
        """
        for node in self.nodes:
            await self.wait_node(node.name, timeout_s=timeout_s)
        for controller in self.controllers:
            await self._wait(
                controller.wait_ready(), controller.process, controller.name, timeout_s
            )

    async def wait_node(self, name: str, *, timeout_s: float) -> None:
        """The same for the drivers of one node."""
        node = self.node(name)
        for agents, driver in (
            (self.agents, GPU_DRIVER),
            (self.domain_agents, COMPUTE_DOMAIN_DRIVER),
        ):
            if agent := agents.get(name):
                what = f"the driver on {name}"
                await self._wait(node.wait_ready(driver), agent, what, timeout_s)

    async def inventory(self) -> dict[str, dict[str, int]]:
        """How many devices of which product each node offers."""
        found: dict[str, dict[str, int]] = {node.name: {} for node in self.nodes}
        selector = f"spec.driver={GPU_DRIVER}"
        for body in (await self.api.list(RESOURCE_SLICES, field_selector=selector))["items"]:
            products = found.setdefault(body["spec"].get("nodeName", ""), {})
            for device in body["spec"].get("devices", ()):
                attributes = device["attributes"]
                label = attributes.get("profile", attributes.get("productName", {}))
                name = label.get("string", "device")
                products[name] = products.get(name, 0) + 1
        return found

    async def power_off(self, name: str) -> None:
        """The node is gone at once, programs and containers with SIGKILL; the API hears of it as
        from a node that has fallen silent."""
        for agents in (self.agents, self.domain_agents):
            if agent := agents.get(name):
                agent.kill()
        await self.parts.stop(self._parts_of(name))
        await mark_unreachable(self.api, name)

    async def power_on(self, name: str) -> None:
        """Another boot of a node that is off. Needs namespaces; `wait_node()` waits for it."""
        self.node(name).boot()
        await mark_reachable(self.api, name)
        self._start(name)

    def add_node(self) -> SimulatedNode:
        """One more, of the same hardware; `wait_node()` waits for it."""
        number = len(self.nodes) + 1
        name = f"node-{number}"
        node = SimulatedNode(
            name=name,
            root=self.root / f"n{number}",
            api=self.api,
            images=self.images,
            runtime=self.plan.runtime,
        )
        self.nodes.append(node)
        self._start(name)
        return node

    def commands_by_hand(self) -> list[list[str]]:
        """Command lines of agents and controller, for a cluster without nodes."""
        return by_hand.commands(self.plan.machine, root=self.root, kubeconfig=self.kubeconfig)

    def _start(self, name: str) -> None:
        node, plan = self.node(name), self.plan
        self.parts.start(f"kubelet {name}", node.kubelet.run)
        setup = AgentSetup(plan.machine, self.access, plan.feature_gates)
        if plan.gpus:
            self.agents[name] = agent = node.agent(setup)
            self.parts.start(f"agent {name}", agent.run)
        if plan.compute_domains is not None:
            agent = node.domain_agent(setup, flags=plan.compute_domains.plugin_flags)
            self.domain_agents[name] = agent
            self.parts.start(f"domain agent {name}", agent.run)

    def _parts_of(self, name: str) -> list[str]:
        found = [f"kubelet {name}"]
        found += [f"agent {name}"] if name in self.agents else []
        return found + ([f"domain agent {name}"] if name in self.domain_agents else [])

    async def _wait(
        self, condition: Awaitable[None], process: AgentProcess, what: str, timeout_s: float
    ) -> None:
        ready = asyncio.ensure_future(condition)
        hopeless = asyncio.create_task(process.hopeless.wait(), name=f"{what} hopeless")
        try:
            await asyncio.wait(
                (ready, hopeless), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not ready.done():
                why = f"ended {process.starts} times" if hopeless.done() else "is not ready"
                raise ClusterNotReady(self._not_ready(f"{what} {why}", process))
            await ready
        finally:
            ready.cancel()
            hopeless.cancel()
            await asyncio.gather(ready, hopeless, return_exceptions=True)

    def _not_ready(self, problem: str, process: AgentProcess) -> str:
        last = process.last_lines()
        if not last:
            return f"{problem} and wrote no log; is {self.root} full?"
        return f"{problem}; the end of its log:\n{last}"


@asynccontextmanager
async def embedded_cluster(plan: ClusterPlan, *, root: Path) -> AsyncIterator[EmbeddedCluster]:
    """Start everything that `plan` names; all of it has ended when the context is left.

    Programs may still be starting: `wait_ready()` waits for them. Raises `ClusterBroken`.
    """
    async with AsyncExitStack() as stack:
        store = ClusterStore()
        api = LocalApi(store)
        nodes: list[SimulatedNode] = []
        server = await stack.enter_async_context(ApiServer(store, pod_logs=partial(_logs, nodes)))
        access = _write_access(server, root)
        await _install(api)
        if not plan.nodes:
            await by_hand.prepare(api, root)
        parts = await stack.enter_async_context(Parts())
        images = ImageStore(root / "images", own=driver_images())
        cluster = EmbeddedCluster(root, plan, store, api, server, nodes, access, images, parts)
        parts.start("scheduler", Scheduler(api).run)
        parts.start("controllers", ControllerManager(api).run)
        _start_controllers(cluster)
        for _ in range(plan.nodes):
            cluster.add_node()
        yield cluster


def _logs(nodes: Sequence[SimulatedNode], namespace: str, pod: str, container: str) -> str:
    """What the pod's kubelet kept of a container's output. Raises `LookupError`."""
    for node in nodes:
        for name in node.kubelet.containers(namespace, pod):
            if container in ("", name):
                return node.kubelet.logs(namespace, pod, name)
    raise LookupError(f"no container {container!r} of pod {namespace}/{pod} has run")


def _start_controllers(cluster: EmbeddedCluster) -> None:
    plan = cluster.plan
    if plan.compute_domains is None or not plan.nodes:
        return
    cluster.controllers += controllers(
        plan.compute_domains,
        access=cluster.access,
        root=cluster.root,
        feature_gates=plan.feature_gates,
    )
    for controller in cluster.controllers:
        cluster.parts.start(controller.name, controller.process.run)


def _write_access(server: ApiServer, root: Path) -> ApiAccess:
    directory = root / "serviceaccount"
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_text(server.ca_pem)
    (directory / "token").write_text(server.token)
    (directory / "namespace").write_text(NAMESPACE)
    kubeconfig = root / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig())
    kubeconfig.chmod(0o600)
    return ApiAccess(host="127.0.0.1", port=server.port, service_account_dir=directory)


async def _install(api: LocalApi) -> None:
    """The objects that the driver's installation brings."""
    await api.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    await install_definitions(api)
    text = (resources.files("nvdra_sim.cluster") / "install" / "deviceclasses.yaml").read_text()
    for body in yaml.safe_load_all(text):
        await api.create(DEVICE_CLASSES, body)
