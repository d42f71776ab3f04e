"""A cluster without nodes: what people need to run its programs by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nvdra_api.names import NAMESPACE
from nvdra_kube.resources import NODES
from nvdra_sim.cluster.domains import CONTROLLER_MODULE, controller_arguments
from nvdra_sim.cluster.node import AGENT_MODULE, DOMAIN_AGENT_MODULE, NodeDirectories

if TYPE_CHECKING:
    from nvdra_kube.api import KubeApi
    from nvdra_sim.cluster.node import MachineChoice

NODE: Final = "node-1"


async def prepare(api: KubeApi, root: Path) -> None:
    """An agent needs its Node object and its directories, also where no kubelet makes them."""
    _directories(root).create()
    await api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})


def commands(machine: MachineChoice, *, root: Path, kubeconfig: Path) -> list[list[str]]:
    """Command lines of the node's agents, and of the controller."""
    access = ["--kubeconfig", str(kubeconfig)]
    agent = [*_directories(root).agent_arguments(NODE, machine), *access]
    controller = ["--pod-name", "controller", *controller_arguments("mirror"), *access]
    return [
        [*_program("nvdra-gpu-plugin", AGENT_MODULE), *agent],
        [
            *_program("nvdra-compute-domain-plugin", DOMAIN_AGENT_MODULE),
            *agent,
            *("--namespace", NAMESPACE),
        ],
        [*_program("nvdra-controller", CONTROLLER_MODULE), *controller],
    ]


def _directories(root: Path) -> NodeDirectories:
    return NodeDirectories(root / "by-hand")


def _program(name: str, module: str) -> list[str]:
    """Beside the interpreter: whoever runs `.venv/bin/nvdra` need not have it in PATH."""
    beside = Path(sys.executable).with_name(name)
    return [str(beside)] if beside.exists() else [sys.executable, "-m", module]
