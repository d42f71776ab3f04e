"""What an agent of ComputeDomains is given, and the parts of it that follow from that alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_api.names import COMPUTE_DOMAIN_DRIVER
from nvdra_nodeagent.cdi.builder import CdiBuilder
from nvdra_nodeagent.cdi.names import DOMAIN_CLAIM_KIND
from nvdra_nodeagent.cdi.store import CdiStore
from nvdra_nodeagent.computedomain.asking import LoopCaller
from nvdra_nodeagent.computedomain.cdi_files import DomainCdiFiles
from nvdra_nodeagent.computedomain.directories import DomainDirectories
from nvdra_nodeagent.computedomain.host_imex import HostImex
from nvdra_nodeagent.computedomain.plan import DomainRules
from nvdra_nodeagent.computedomain.steps import DomainSteps
from nvdra_nodeagent.errors import Permanent
from nvdra_nodeagent.node_agent import make_directories
from nvdra_nodeagent.reporting.desk import ReportDesk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nvdra_api.gates import FeatureGates
    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.computedomain.options import DomainOptions
    from nvdra_nodeagent.hardware.ports import Machine
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.program.metrics import AgentMetrics
    from nvdra_nodeagent.steps.domain_ready import WaitOutcome

_HOST_GATE = "HostManagedIMEXDaemon"


@dataclass(frozen=True, slots=True)
class Site:
    """One node and its agent's ways to everything around it."""

    options: DomainOptions
    api: KubeApi
    machine: Machine
    gates: FeatureGates
    metrics: AgentMetrics
    boot_id: str

    @property
    def node(self) -> str:
        return self.options.common.node_name

    @property
    def host_managed(self) -> bool:
        """Whether the hosts run `nvidia-imex` themselves."""
        return self.options.imex_mode == "hostManaged"

    def check(self) -> None:
        """:raises Permanent: the options ask for what a feature gate keeps off."""
        if self.host_managed and not self.gates[_HOST_GATE]:
            raise Permanent(
                "GateMissing",
                f"--imex-mode=hostManaged needs the feature gate {_HOST_GATE} to be on",
                hint=f"set featureGates.{_HOST_GATE}=true",
            )

    def make_directories(self) -> Path:
        """As `node_agent.make_directories`."""
        return make_directories(self.options.common, COMPUTE_DOMAIN_DRIVER)

    def directories(self, state_dir: Path) -> DomainDirectories:
        return DomainDirectories(state_dir / "domains", node=self.node, boot_id=self.boot_id)

    def cdi_store(self) -> CdiStore:
        return CdiStore(self.options.common.cdi_root, kind=DOMAIN_CLAIM_KIND)

    def cdi(
        self, store: CdiStore, directories: DomainDirectories, inventory: Callable[[], Inventory]
    ) -> DomainCdiFiles:
        """Not by way of NVML: a call to the driver that hangs must not hold up the claims."""
        builder = CdiBuilder(
            self.machine,
            driver_version=lambda: inventory().driver_version,
            kind=DOMAIN_CLAIM_KIND,
        )
        return DomainCdiFiles(
            store,
            builder=builder,
            nodes=self.machine.imex_nodes,
            directories=directories,
            gpus=lambda: inventory().gpus,
        )

    def reports(self) -> ReportDesk:
        return ReportDesk(
            self.api,
            driver=COMPUTE_DOMAIN_DRIVER,
            node=self.node,
            conditions=self.options.common.claim_conditions,
            on_lost=self.metrics.report_failed,
        )

    def rules(self, cdi: DomainCdiFiles, *, driver_version: Callable[[], str]) -> DomainRules:
        return DomainRules(
            driver=COMPUTE_DOMAIN_DRIVER,
            node=self.node,
            namespaces=self.options.namespaces,
            gates=self.gates,
            boot_id=self.boot_id,
            cdi_id=cdi.device_id,
            driver_version=driver_version,
            host_managed=self.host_managed,
        )

    def steps(
        self,
        directories: DomainDirectories,
        cdi: DomainCdiFiles,
        *,
        on_wait: Callable[[WaitOutcome, float], None],
        is_doubtful: Callable[[str], bool],
    ) -> DomainSteps:
        """Only in a running loop."""
        socket = self.options.imex_host_socket_path
        return DomainSteps(
            self.api,
            directories=directories,
            cdi=cdi,
            node=self.node,
            boot_id=self.boot_id,
            loop=LoopCaller(),
            host=HostImex(self.machine.driver_root, socket=socket) if self.host_managed else None,
            on_wait=on_wait,
            is_doubtful=is_doubtful,
        )
