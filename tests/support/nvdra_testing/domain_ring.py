"""ComputeDomains on an embedded cluster: controller, node agents, IMEX daemons are all processes.

Kubelets, scheduler and API server are in the test's process; containers have namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nvdra_api.names import (
    ANNOTATION_NODE_CLIQUE,
    COMPUTE_DOMAIN_DRIVER,
    LABEL_COMPUTE_DOMAIN,
    NAMESPACE,
    daemon_set_name,
)
from nvdra_kube.errors import NotFound
from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS
from nvdra_sim.cluster.domains import DomainPlan
from nvdra_sim.cluster.embedded import ClusterPlan, EmbeddedCluster, embedded_cluster
from nvdra_sim.cluster.node import MachineChoice
from nvdra_testing.compute_domains import a_domain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from nvdra_kube.api import Body, Resource
    from nvdra_sim.cluster.kubelet.container import ContainerRuntime

PATIENCE_S: Final = 90.0
FABRIC_CLIQUE: Final = "6e766472-6120-5369-6d75-6c6174656420.1"
_START_S: Final = 120.0
_SCRIPT: Final = "ls /dev/nvidia-caps-imex-channels; trap 'exit 0' TERM; sleep 9999 & wait"
_T = TypeVar("_T")


@dataclass(slots=True)
class Formed:
    """A ComputeDomain, and the pods of its workload."""

    name: str
    uid: str
    pods: list[str]


@dataclass(slots=True)
class DomainRing:
    """Users' objects are all in the namespace `default`."""

    cluster: EmbeddedCluster
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def name(self, stem: str = "job") -> str:
        """One that nobody else has."""
        return f"{stem}-{next(self._numbers)}"

    async def domain(self, name: str, *, num_nodes: int = 0) -> str:
        """A new ComputeDomain; its UID."""
        body = a_domain(name, template=f"{name}-channel", num_nodes=num_nodes)
        made = await self.cluster.api.create(COMPUTE_DOMAINS, body, namespace="default")
        return str(made["metadata"]["uid"])

    async def workload(self, domain: str, node: str, *, name: str = "") -> str:
        """A pod of the user on that node, with a channel of the domain; its name."""
        name = name or self.name(f"{domain}-{node}")
        container = {
            "name": "ctr",
            "image": "ubuntu:24.04",
            "command": ["bash", "-c", _SCRIPT],
            "resources": {"claims": [{"name": "channel"}]},
        }
        claim = {"name": "channel", "resourceClaimTemplateName": f"{domain}-channel"}
        spec = {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 2,
            "containers": [container],
            "resourceClaims": [claim],
        }
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        await self.cluster.api.create(PODS, body, namespace="default")
        return name

    @asynccontextmanager
    async def formed(self, nodes: Sequence[str]) -> AsyncIterator[Formed]:
        """A domain with a running workload on each of the nodes. Nothing of it is left behind."""
        async with self.forming(nodes) as domain:
            for pod in domain.pods:
                await self.running(pod)
            await self.ready(domain.name)
            yield domain

    @asynccontextmanager
    async def forming(self, nodes: Sequence[str]) -> AsyncIterator[Formed]:
        """The same, without waiting for anything."""
        name = self.name()
        uid = await self.domain(name, num_nodes=len(nodes))
        domain = Formed(name, uid, [])
        try:
            domain.pods += [await self.workload(name, node) for node in nodes]
            yield domain
        finally:
            await self._clear(domain)

    async def running(self, pod: str) -> Body:
        async def found() -> Body:
            body = await self.pod(pod)
            return body if _phase(body) == "Running" and _is_ready(body) else {}

        return await self.until(found, f"pod {pod} runs")

    async def pod(self, name: str) -> Body:
        return await self.cluster.api.get(PODS, name, namespace="default")

    async def channels(self, pod: str, node: str) -> list[str]:
        """What the workload found below /dev, once it has said so."""
        kubelet = self.cluster.node(node).kubelet

        async def said() -> list[str]:
            return kubelet.logs("default", pod, "ctr").split()

        return await self.until(said, f"pod {pod} has printed something")

    async def delete_pod(self, name: str, *, force: bool = False) -> None:
        """Without waiting for its end."""
        grace_s = 0 if force else None
        await self.cluster.api.delete(PODS, name, namespace="default", grace_period_s=grace_s)

    async def delete_domain(self, name: str) -> None:
        await self.cluster.api.delete(COMPUTE_DOMAINS, name, namespace="default")

    async def look(self, name: str) -> Body:
        return await self.cluster.api.get(COMPUTE_DOMAINS, name, namespace="default")

    async def ready(self, name: str) -> Body:
        """The status once it says Ready, with all nodes."""
        return await self.condition(name, "Ready", reason="NodesReady")

    async def condition(self, name: str, kind: str, *, reason: str) -> Body:
        """The condition once it has this reason."""

        async def found() -> Body:
            status = (await self.look(name)).get("status") or {}
            for one in status.get("conditions") or ():
                if (one["type"], one["reason"]) == (kind, reason):
                    return dict(one)
            return {}

        return await self.until(found, f"{kind} of {name} is {reason}")

    async def nodes_of(self, name: str) -> dict[str, Body]:
        """What the domain's status says of its nodes, by name."""
        status = (await self.look(name)).get("status") or {}
        return {node["name"]: node for node in status.get("nodes") or ()}

    async def cliques_of(self, uid: str) -> list[Body]:
        return await self.labelled(CLIQUES, uid)

    async def labelled(self, resource: Resource, uid: str) -> list[Body]:
        """Objects that bear the domain's label."""
        listed = await self.cluster.api.list(
            resource, label_selector=f"{LABEL_COMPUTE_DOMAIN}={uid}"
        )
        return list(listed["items"])

    async def daemon(self, uid: str, node: str) -> Body:
        """The daemon's pod on that node, once there is one that is not being deleted."""

        async def found() -> Body:
            pods = await self.labelled(PODS, uid)
            return next((pod for pod in pods if _lives_on(pod, node)), {})

        return await self.until(found, f"{uid} has a daemon on {node}")

    async def daemon_ready(self, uid: str, node: str) -> Body:
        async def found() -> Body:
            body = await self.daemon(uid, node)
            return body if _is_ready(body) else {}

        return await self.until(found, f"the daemon of {uid} on {node} is ready")

    def shared(self, uid: str, node: str) -> Path:
        """What the daemon there sees as /imexd."""
        plugins = self.cluster.node(node).directories.plugins
        return plugins / COMPUTE_DOMAIN_DRIVER / "domains" / uid

    def said(self, uid: str, node: str, file: str) -> dict[str, Any]:
        """A file in the shared directory; empty when it is not there."""
        with contextlib.suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads((self.shared(uid, node) / file).read_text())
            return found
        return {}

    async def imex(self, uid: str, node: str) -> int:
        """Process id of the `nvidia-imex` there, once one runs."""
        return await self._process(uid, node, "nvidia-imex")

    async def daemon_process(self, uid: str, node: str) -> int:
        """Process id of `nvdra-imex-daemon` there."""
        return await self._process(uid, node, "nvdra_nodeagent.imex.main")

    async def _process(self, uid: str, node: str, word: str) -> int:
        async def found() -> int:
            pod = await self.daemon(uid, node)
            address = (pod.get("status") or {}).get("podIP")
            return next(iter(processes(f"POD_IP={address}", word)), 0) if address else 0

        return await self.until(found, f"{word} of {uid} runs on {node}")

    async def gone(self, domain: Formed) -> None:
        """Until nothing of the domain is left: no object, no label, no daemon, no claim of one."""

        async def left() -> bool:
            return not await self._leftovers(domain)

        try:
            await self.until(left, "nothing is left")
        except AssertionError:
            left_over = await self._leftovers(domain)
            raise AssertionError(f"left of {domain.name}: {left_over}") from None

    async def _leftovers(self, domain: Formed) -> list[str]:
        api, uid = self.cluster.api, domain.uid
        kinds = (DAEMON_SETS, RESOURCE_CLAIM_TEMPLATES, CLIQUES, PODS, NODES)
        found = [
            f"{kind.kind} {body['metadata']['name']}"
            for kind in kinds
            for body in await self.labelled(kind, uid)
        ]
        nodes = (await api.list(NODES))["items"]
        marks = {body["metadata"]["name"]: _annotations(body) for body in nodes}
        labels = {body["metadata"]["name"]: _labels(body) for body in nodes}
        found += [
            f"clique of {node}"
            for node, mark in marks.items()
            if ANNOTATION_NODE_CLIQUE in mark and LABEL_COMPUTE_DOMAIN not in labels[node]
        ]
        claims = (await api.list(RESOURCE_CLAIMS, namespace=NAMESPACE))["items"]
        prefix = daemon_set_name(uid)
        names = (claim["metadata"]["name"] for claim in claims)
        found += [f"claim {each}" for each in names if each.startswith(prefix)]
        with contextlib.suppress(NotFound):
            await self.look(domain.name)
            found.append(f"ComputeDomain {domain.name}")
        return found

    async def _clear(self, domain: Formed) -> None:
        """Give the nodes back to other tests."""
        for pod in domain.pods:
            with contextlib.suppress(NotFound):
                await self.delete_pod(pod)
        for pod in domain.pods:
            await self.pod_gone(pod)
        with contextlib.suppress(NotFound):
            await self.delete_domain(domain.name)
        await self.gone(domain)

    async def pod_gone(self, name: str) -> None:
        async def missing() -> bool:
            try:
                await self.pod(name)
            except NotFound:
                return True
            return False

        await self.until(missing, f"pod {name} is gone")

    async def until(self, probe: Callable[[], Awaitable[_T]], what: str) -> _T:
        """The first true value of the probe; what it does not find yet is not there yet."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    with contextlib.suppress(NotFound):
                        if value := await probe():
                            return value
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"never happened: {what}") from None


@asynccontextmanager
async def domain_ring(
    nodes: int, *, gates: str = "", runtime: ContainerRuntime | None = None, **plan: Any
) -> AsyncIterator[DomainRing]:
    """A ring of nodes in one NVLink clique that is ready. `plan`: fields of `DomainPlan`.

    It runs in a task of its own: fixtures may end elsewhere than where they began.
    """
    started: asyncio.Future[EmbeddedCluster] = asyncio.get_running_loop().create_future()
    end = asyncio.Event()
    # Not pytest's directory: paths of sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="nvdra-", ignore_cleanup_errors=True) as root:
        wanted = ClusterPlan(
            nodes=nodes,
            machine=MachineChoice(profile="gb200"),
            feature_gates=gates,
            gpus=False,
            runtime=runtime,
            compute_domains=DomainPlan(**plan),
        )
        running = asyncio.create_task(_run(wanted, Path(root), started, end), name="ring")
        try:
            await asyncio.wait((started, running), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            yield DomainRing(started.result())
        finally:
            end.set()
            await running


async def _run(
    plan: ClusterPlan, root: Path, started: asyncio.Future[EmbeddedCluster], end: asyncio.Event
) -> None:
    async with embedded_cluster(plan, root=root) as cluster:
        await cluster.wait_ready(timeout_s=_START_S)
        started.set_result(cluster)
        await end.wait()


def processes(variable: str, word: str) -> list[int]:
    """Processes that have this in their environment, and a word of their command ends so."""
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            environ = (directory / "environ").read_bytes().split(b"\0")
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if variable.encode() in environ and any(_is_named(each, word) for each in words):
                found.append(int(directory.name))
    return found


def _is_named(argument: bytes, word: str) -> bool:
    text = argument.decode(errors="replace")
    return text.rpartition("/")[2] == word or word in text.split()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _phase(pod: Body) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def _is_ready(pod: Body) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def _lives_on(pod: Body, node: str) -> bool:
    return pod["spec"].get("nodeName") == node and not pod["metadata"].get("deletionTimestamp")


def _labels(body: Body) -> Body:
    return body["metadata"].get("labels") or {}


def _annotations(body: Body) -> Body:
    return body["metadata"].get("annotations") or {}
