"""A simulated node: its directories, its kubelet and its node agents, as on a real one."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_api.names import NAMESPACE
from nvdra_kube.resources import RESOURCE_SLICES
from nvdra_sim.cluster.agent_process import AgentProcess
from nvdra_sim.cluster.kubelet import Kubelet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nvdra_kube.api import KubeApi
    from nvdra_sim.cluster.access import ApiAccess
    from nvdra_sim.cluster.kubelet import ImageStore
    from nvdra_sim.cluster.kubelet.container import ContainerRuntime

AGENT_MODULE: Final = "nvdra_nodeagent.main"
DOMAIN_AGENT_MODULE: Final = "nvdra_nodeagent.compute_domain_main"

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_WITH_BOOT_ID: Final = f'mount --bind "$1" {_BOOT_ID} || exit 77; shift; exec "$@"'


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineChoice:
    """What hardware a node has. `mig_layout` is a file of the mig-parted form."""

    profile: str = "h100"
    mig_layout: Path | None = None


@dataclass(frozen=True, slots=True)
class AgentSetup:
    """What the agents of all nodes have in common."""

    machine: MachineChoice
    access: ApiAccess
    feature_gates: str = ""


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

    @property
    def domain_agent_log(self) -> Path:
        return self.root / "domain-agent.log"

    @property
    def boot_id(self) -> Path:
        """Of a node that was rebooted; others have the machine's."""
        return self.root / "boot-id"

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
    """One node: a kubelet in this process, and agents that `agent()` and `domain_agent()` make."""

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        api: KubeApi,
        images: ImageStore,
        runtime: ContainerRuntime | None = None,
    ) -> None:
        """`runtime` as the kubelet has it."""
        self.name = name
        self.directories = NodeDirectories(root)
        self.directories.create()
        self._api, self._images, self._runtime = api, images, runtime
        self.kubelet = self._kubelet()

    def boot(self) -> None:
        """Another boot of the machine: what it remembers without its disk is gone.

        Nothing of the node may run. Agents have to be made anew; they and the containers see the
        new boot's id, for which namespaces are needed.
        """
        self.directories.boot_id.write_text(f"{uuid.uuid4()}\n")
        self.kubelet = self._kubelet()

    def agent(self, setup: AgentSetup) -> AgentProcess:
        """The real node agent on this node's hardware, as an unmodified process."""
        return self._process(AGENT_MODULE, setup, (), self.directories.agent_log)

    def domain_agent(self, setup: AgentSetup, *, flags: Sequence[str] = ()) -> AgentProcess:
        """The same for ComputeDomains."""
        return self._process(DOMAIN_AGENT_MODULE, setup, flags, self.directories.domain_agent_log)

    async def wait_ready(self, driver: str) -> None:
        """Until that driver is registered and its slices stand in the API."""
        await self.kubelet.wait_registered(driver)
        selector = f"spec.driver={driver},spec.nodeName={self.name}"
        listed = await self._api.list(RESOURCE_SLICES, field_selector=selector)
        if listed["items"]:
            return
        revision = listed["metadata"]["resourceVersion"]
        async for event in self._api.watch(
            RESOURCE_SLICES, resource_version=revision, field_selector=selector
        ):
            if event.type == "ADDED":
                return

    def _kubelet(self) -> Kubelet:
        boot_id = self.directories.boot_id
        return Kubelet(
            self._api,
            node=self.name,
            root=self.directories.root,
            images=self._images,
            runtime=self._runtime,
            boot_id=boot_id if boot_id.exists() else None,
        )

    def _process(
        self, module: str, setup: AgentSetup, flags: Sequence[str], log: Path
    ) -> AgentProcess:
        return AgentProcess(
            module=module,
            arguments=[
                *self.directories.agent_arguments(self.name, setup.machine),
                *("--namespace", NAMESPACE),
                *("--service-account-dir", str(setup.access.service_account_dir)),
                *("--feature-gates", setup.feature_gates),
                *flags,
            ],
            environ=setup.access.environ_in(os.environ),
            log_file=log,
            wrapper=self._wrapper(),
        )

    def _wrapper(self) -> list[str]:
        if not self.directories.boot_id.exists():
            return []
        namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
        return [*namespaces, "sh", "-c", _WITH_BOOT_ID, "sh", str(self.directories.boot_id)]
