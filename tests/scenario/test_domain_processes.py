"""A ComputeDomain with scheduler, controllers and kubelet; agent and daemon are processes."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from nvdra_api.names import LABEL_COMPUTE_DOMAIN, NAMESPACE
from nvdra_kube.resources import DEVICE_CLASSES, NODES, PODS
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS
from nvdra_sim.cluster.agent_process import AgentProcess
from nvdra_sim.cluster.apiserver import ApiServer
from nvdra_sim.cluster.controllers import ControllerManager
from nvdra_sim.cluster.kubelet import ImageStore, Kubelet
from nvdra_sim.cluster.node import MachineChoice, NodeDirectories
from nvdra_sim.cluster.scheduler import Scheduler
from nvdra_sim.imex.programs import lay_out
from nvdra_testing.compute_domains import DomainCluster
from nvdra_testing.host_containers import HostRuntime
from nvdra_testing.simulation import PUBLIC_SPECS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_kube.api import Body

CLASSES = {
    "compute-domain-default-channel.nvidia.com": "channel",
    "compute-domain-daemon.nvidia.com": "daemon",
}
KINDS = {"ComputeDomain": COMPUTE_DOMAINS, "Pod": PODS}


class Ring:
    """One gb200 node; `runtime` knows what was started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.it = DomainCluster()
        self.runtime = HostRuntime(programs=root / "imex")
        self.directories = NodeDirectories(root / "n1")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        lay_out(self.root / "imex")
        self.directories.create()
        await self.it.install()
        for name, kind in CLASSES.items():
            await self.it.api.create(DEVICE_CLASSES, _device_class(name, kind))
        images = ImageStore(self.root / "images")
        kubelet = Kubelet(
            self.it.api, node="node-1", root=self.root / "n1", images=images, runtime=self.runtime
        )
        async with ApiServer(self.it.store) as server, self.it.running():
            agent = self._agent(server)
            works = (
                Scheduler(self.it.api).run,
                ControllerManager(self.it.api).run,
                kubelet.run,
                agent.run,
            )
            tasks = [asyncio.create_task(work()) for work in works]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _agent(self, server: ApiServer) -> AgentProcess:
        account = self.root / "account"
        account.mkdir()
        (account / "ca.crt").write_text(server.ca_pem)
        (account / "token").write_text(server.token)
        address = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(server.port),
        }
        return AgentProcess(
            module="nvdra_nodeagent.compute_domain_main",
            arguments=[
                *self.directories.agent_arguments("node-1", MachineChoice(profile="gb200")),
                *("--namespace", NAMESPACE),
                *("--service-account-dir", str(account)),
            ],
            environ={**os.environ, **address},
            log_file=self.directories.agent_log,
        )

    async def apply(self, name: str) -> None:
        for body in yaml.safe_load_all((PUBLIC_SPECS / "imex" / name).read_text()):
            await self.it.api.create(KINDS[body["kind"]], body, namespace="default")

    async def running_pod(self, name: str) -> Body:
        async def found() -> Body:
            pod = await self.it.api.get(PODS, name, namespace="default")
            return pod if (pod.get("status") or {}).get("phase") == "Running" else {}

        return await self.it.until(found)


def _device_class(name: str, kind: str) -> Body:
    driver = "compute-domain.nvidia.com"
    expression = f"device.driver == '{driver}' && device.attributes['{driver}'].type == '{kind}'"
    if kind == "channel":
        expression += f" && device.attributes['{driver}'].id == 0"
    return {
        "metadata": {"name": name},
        "spec": {"selectors": [{"cel": {"expression": expression}}]},
    }


@pytest.mark.timeout(120)
@pytest.mark.skipif(not PUBLIC_SPECS.exists(), reason="the public specs are not here")
@pytest.mark.parametrize(
    ("spec", "pod", "channels"),
    [
        ("channel-injection.yaml", "imex-channel-injection", 1),
        ("channel-injection-all.yaml", "imex-channel-injection-all", 2048),
    ],
)
async def test_a_workload_gets_its_channels_when_the_daemon_is_ready(
    tmp_path: Path, spec: str, pod: str, channels: int
) -> None:
    ring = Ring(tmp_path)
    async with ring.running():
        await ring.apply(spec)
        await ring.running_pod(pod)
        nodes = ring.runtime.specs["ctr"].edits.device_nodes
        assert len(nodes) == channels
        assert nodes[0].path == "/dev/nvidia-caps-imex-channels/channel0"
        (clique,) = (await ring.it.api.list(CLIQUES))["items"]
        assert [each["nodeName"] for each in clique["daemons"]] == ["node-1"]
        (domain,) = (await ring.it.api.list(COMPUTE_DOMAINS))["items"]
        labels = (await ring.it.api.get(NODES, "node-1"))["metadata"]["labels"]
        assert labels[LABEL_COMPUTE_DOMAIN] == domain["metadata"]["uid"]
