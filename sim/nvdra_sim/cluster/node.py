"""A simulated node: its directories, its kubelet and its node agent, as on a real one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_nodeagent.program.options import option_variables
from nvdra_sim.cluster.agent_process import AgentProcess
from nvdra_sim.cluster.kubelet import Kubelet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nvdra_kube.api import KubeApi
    from nvdra_sim.cluster.kubelet import ImageStore

AGENT_MODULE = "nvdra_nodeagent.main"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineChoice:
    """What hardware a node has. `mig_layout` is a file of the mig-parted form."""

    profile: str = "h100"
    mig_layout: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAccess:
    """How an agent reaches the API server: as a pod would, by environment and token file."""

    host: str
    port: int
    service_account_dir: Path

    def environ(self) -> dict[str, str]:
        """Without the kubeconfig of whoever runs the simulator: it is of another cluster."""
        return {
            "KUBECONFIG": "",
            "KUBERNETES_SERVICE_HOST": self.host,
            "KUBERNETES_SERVICE_PORT": str(self.port),
        }

    def environ_in(self, shell: Mapping[str, str]) -> dict[str, str]:
        """For an agent started from there; variables that set its options are left out."""
        options = option_variables()
        kept = {name: value for name, value in shell.items() if name not in options}
        return {**kept, **self.environ()}


@dataclass(frozen=True, slots=True)
class NodeDirectories:
    """Where a node keeps what; short names, because Unix socket paths have to be short."""

    root: Path

    @property
    def plugins(self) -> Path:
        return self.root / "plugins"

    @property
    def registry(self) -> Path:
        return self.root / "plugins_registry"

    @property
    def cdi(self) -> Path:
        return self.root / "cdi"

    @property
    def machine(self) -> Path:
        """The simulated hardware's state."""
        return self.root / "machine"

    @property
    def agent_log(self) -> Path:
        return self.root / "agent.log"

    def create(self) -> None:
        """Make what a kubelet's installation would have made."""
        for directory in (self.plugins, self.registry, self.cdi):
            directory.mkdir(parents=True, exist_ok=True)

    def agent_arguments(self, node: str, machine: MachineChoice) -> list[str]:
        """Flags of a node agent that works on these directories."""
        layout = ["--simulate-mig-layout", str(machine.mig_layout)] if machine.mig_layout else []
        return [
            *("--node-name", node),
            *("--simulate", machine.profile),
            *("--simulate-state", str(self.machine)),
            *layout,
            *("--cdi-root", str(self.cdi)),
            *("--kubelet-plugins-directory-path", str(self.plugins)),
            *("--kubelet-registrar-directory-path", str(self.registry)),
            *("-v", "4"),
        ]


class SimulatedNode:
    """One node: a kubelet in this process, and an agent that `agent()` makes."""

    def __init__(self, *, name: str, root: Path, api: KubeApi, images: ImageStore) -> None:
        self.name = name
        self.directories = NodeDirectories(root)
        self.directories.create()
        self.kubelet = Kubelet(api, node=name, root=root, images=images)

    def agent(
        self, *, machine: MachineChoice, access: ApiAccess, feature_gates: str = ""
    ) -> AgentProcess:
        """The real node agent on this node's hardware, as an unmodified process."""
        return AgentProcess(
            module=AGENT_MODULE,
            arguments=[
                *self.directories.agent_arguments(self.name, machine),
                *("--service-account-dir", str(access.service_account_dir)),
                *("--feature-gates", feature_gates),
            ],
            environ=access.environ_in(os.environ),
            log_file=self.directories.agent_log,
        )
