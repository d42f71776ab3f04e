"""Workloads of a ComputeDomain on the embedded cluster, from apply until all their pods run.

Scheduler, controllers and kubelets are simulated, in this process; the controller with Kopf, the
nodes' agents and the daemons are the real programs, each a process, and `nvidia-imex` is simulated.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nvdra_kube.logs import configure
from nvdra_kube.resources import PODS
from nvdra_operator.resources import COMPUTE_DOMAINS
from nvdra_sim.cluster.domains import DomainPlan
from nvdra_sim.cluster.embedded import ClusterPlan, embedded_cluster
from nvdra_sim.cluster.node import MachineChoice
from nvdra_testing.compute_domains import a_domain

from .domain_states import until
from .figures import cpu_s, medians, memory_mib, print_document, progress, rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.embedded import EmbeddedCluster

SIZES: Final = (1, 4, 18)
_NAMESPACE: Final = "default"
_READY_S: Final = 600.0


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python tests/bench workloads", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="NODES")
    parser.add_argument("--quick", action="store_true", help="one node")
    options = parser.parse_args(argv)
    configure(verbosity=0)
    asyncio.run(_measure(SIZES[:1] if options.quick else options.sizes, options.rounds))


async def _measure(sizes: Sequence[int], rounds: int) -> None:
    found = {}
    for size in sizes:
        progress(f"{size} nodes")
        with tempfile.TemporaryDirectory(prefix="nv", dir="/tmp") as root:
            found[str(size)] = await _cluster(size, rounds, Path(root))
    print_document({"nodes": found, "rounds": rounds})


async def _cluster(size: int, rounds: int, root: Path) -> dict[str, Any]:
    plan = ClusterPlan(
        nodes=size,
        machine=MachineChoice(profile="gb200"),
        gpus=False,
        compute_domains=DomainPlan(lifecycle="kopf"),
    )
    async with embedded_cluster(plan, root=root) as cluster:
        await cluster.wait_ready(timeout_s=_READY_S)
        return medians([await _round(cluster, f"job-{number}") for number in range(rounds)])


async def _round(cluster: EmbeddedCluster, name: str) -> dict[str, Any]:
    size = len(cluster.nodes)
    pods = [_a_pod(f"{name}-{number}", template=name) for number in range(size)]
    before_s, began_s = _cpu_s(cluster), time.monotonic()
    domain = await cluster.api.create(COMPUTE_DOMAINS, a_domain(name, template=name))
    await asyncio.gather(*(cluster.api.create(PODS, pod) for pod in pods))
    await until(lambda: _all_run(cluster, size))
    running_s = time.monotonic() - began_s
    await until(lambda: _is_ready(cluster, name, size))
    ready_s = time.monotonic() - began_s
    progress(f"{name}: {running_s:.1f} s")
    cpu = {what: rounded(after - before_s[what]) for what, after in _cpu_s(cluster).items()}
    memory = {
        "daemon": _most([memory_mib(pid) for pid in _daemons(domain["metadata"]["uid"])]),
        "agent": _most([memory_mib(pid) for pid in _agents(cluster)]),
        "controller": _most([memory_mib(pid) for pid in _controllers(cluster)]),
    }
    began_s = time.monotonic()
    for pod in pods:
        await cluster.api.delete(PODS, pod["metadata"]["name"], namespace=_NAMESPACE)
    await cluster.api.delete(COMPUTE_DOMAINS, name, namespace=_NAMESPACE)
    await until(lambda: _nothing_is_left(cluster))
    return {
        "all_pods_running_s": rounded(running_s),
        "domain_ready_s": rounded(ready_s),
        "cpu_s": cpu,
        "memory_mib": memory,
        "gone_s": rounded(time.monotonic() - began_s),
    }


def _a_pod(name: str, *, template: str) -> Body:
    """A node has one channel, so that each pod gets a node of its own."""
    command = ["bash", "-c", "trap 'exit 0' TERM; sleep 9999 & wait"]
    container = {"name": "ctr", "image": "ubuntu:22.04", "command": command}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": _NAMESPACE},
        "spec": {
            "containers": [{**container, "resources": {"claims": [{"name": "channel"}]}}],
            "resourceClaims": [{"name": "channel", "resourceClaimTemplateName": template}],
        },
    }


async def _all_run(cluster: EmbeddedCluster, count: int) -> bool:
    found = (await cluster.api.list(PODS, namespace=_NAMESPACE))["items"]
    return [(pod.get("status") or {}).get("phase") for pod in found] == ["Running"] * count


async def _is_ready(cluster: EmbeddedCluster, name: str, count: int) -> bool:
    body = await cluster.api.get(COMPUTE_DOMAINS, name, namespace=_NAMESPACE)
    status = body.get("status") or {}
    listed = [node["status"] for node in status.get("nodes") or ()]
    return status.get("status") == "Ready" and listed == ["Ready"] * count


async def _nothing_is_left(cluster: EmbeddedCluster) -> bool:
    return not any([(await cluster.api.list(kind))["items"] for kind in (COMPUTE_DOMAINS, PODS)])


def _cpu_s(cluster: EmbeddedCluster) -> dict[str, float]:
    return {
        "agents": sum(cpu_s(pid) for pid in _agents(cluster)),
        "controller": sum(cpu_s(pid) for pid in _controllers(cluster)),
    }


def _agents(cluster: EmbeddedCluster) -> list[int]:
    return [agent.pid for agent in cluster.domain_agents.values() if agent.pid]


def _controllers(cluster: EmbeddedCluster) -> list[int]:
    return [each.process.pid for each in cluster.controllers if each.process.pid]


def _daemons(uid: str) -> list[int]:
    """Processes of the domain's daemons; what they have started is none."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if f"COMPUTE_DOMAIN_UUID={uid}" in _text(path)
        and "nvdra_nodeagent.imex" in _text(path.with_name("cmdline"))
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _most(sizes: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of the one that has most."""
    return max(sizes, key=lambda each: each["resident"])
