"""The ComputeDomain driver of one node: wires its rooms together; `NodeAgent` runs them."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

from nvdra_api.names import COMPUTE_DOMAIN_DRIVER
from nvdra_nodeagent.cdi.builder import CdiBuilder
from nvdra_nodeagent.cdi.names import DOMAIN_CLAIM_KIND
from nvdra_nodeagent.cdi.store import CdiStore
from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.migration import NAME, take_over
from nvdra_nodeagent.claims.books import NodeFacts
from nvdra_nodeagent.claims.observer import ClaimObserver, Observers
from nvdra_nodeagent.claims.service import Limits, NodeClaims
from nvdra_nodeagent.computedomain.asking import LoopCaller
from nvdra_nodeagent.computedomain.base_file import BaseFile
from nvdra_nodeagent.computedomain.cdi_files import DomainCdiFiles
from nvdra_nodeagent.computedomain.clique_label import CliqueLabel
from nvdra_nodeagent.computedomain.devices import published
from nvdra_nodeagent.computedomain.directories import DomainDirectories
from nvdra_nodeagent.computedomain.domains import Domains
from nvdra_nodeagent.computedomain.earlier_claims import DaemonFiles, EarlierClaims
from nvdra_nodeagent.computedomain.fabric import FabricKeeper
from nvdra_nodeagent.computedomain.host_imex import HostImex
from nvdra_nodeagent.computedomain.leavings import DomainLeavings
from nvdra_nodeagent.computedomain.news import ReadinessNews
from nvdra_nodeagent.computedomain.peers import PeerKeeper
from nvdra_nodeagent.computedomain.plan import DomainPlanner, DomainRules
from nvdra_nodeagent.computedomain.readiness import daemons_of
from nvdra_nodeagent.computedomain.steps import DomainSteps
from nvdra_nodeagent.duties import Duty
from nvdra_nodeagent.errors import Permanent
from nvdra_nodeagent.inventory.keeper import InventoryKeeper
from nvdra_nodeagent.node_agent import NodeAgent, make_directories
from nvdra_nodeagent.reporting.desk import ReportDesk
from nvdra_nodeagent.slices.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nvdra_api.gates import FeatureGates
    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.computedomain.options import DomainOptions
    from nvdra_nodeagent.hardware.ports import Machine
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.program.metrics import AgentMetrics

PREPARE_BUDGET_S: Final = 38.0
ANSWER_WITHIN_S: Final = 42.0
"""The kubelet waits 45 s, and most of a prepare is waiting for a daemon to start."""

_FIRST_LOOK_S: Final = 10.0


class FabricGates:
    """How strictly the fabric is judged: a `FabricRules`."""

    def __init__(self, gates: FeatureGates) -> None:
        self.strict = gates["CrashOnNVLinkFabricErrors"]
        self.partitioned = gates["FabricManagerPartitioning"]


class DomainAgent(NodeAgent):
    """Publishes channel and daemon, and prepares claims for `compute-domain.nvidia.com`."""

    def __init__(
        self,
        options: DomainOptions,
        *,
        api: KubeApi,
        machine: Machine,
        gates: FeatureGates,
        metrics: AgentMetrics,
        boot_id: str,
        retry_budget_s: float = PREPARE_BUDGET_S,
        beside_others: bool = False,
    ) -> None:
        """`beside_others` as `NodeAgent` has it. Only in a running loop."""
        host_managed = options.imex_mode == "hostManaged"
        if host_managed and not gates["HostManagedIMEXDaemon"]:
            raise Permanent(
                "GateMissing",
                "--imex-mode=hostManaged needs the feature gate HostManagedIMEXDaemon to be on",
                hint="set featureGates.HostManagedIMEXDaemon=true",
            )
        common = options.common
        node = common.node_name
        state_dir = make_directories(common, COMPUTE_DOMAIN_DRIVER)
        self._loop = LoopCaller()
        self.keeper = InventoryKeeper(
            machine, on_change=self._take_inventory, interval_s=common.rescan_interval
        )
        metrics.watch_inventory(lambda: self.keeper.age_s)
        self.fabric = FabricKeeper(
            machine.nvml, FabricGates(gates), on_change=lambda clique: self._publish()
        )
        self.directories = DomainDirectories(state_dir / "domains", node=node, boot_id=boot_id)
        builder = CdiBuilder(
            machine,
            driver_version=lambda: self.keeper.current.driver_version,
            kind=DOMAIN_CLAIM_KIND,
        )
        store = CdiStore(common.cdi_root, kind=DOMAIN_CLAIM_KIND)
        cdi = DomainCdiFiles(
            store,
            builder=builder,
            nodes=machine.imex_nodes,
            directories=self.directories,
            gpus=lambda: self.keeper.current.gpus,
        )
        reports = ReportDesk(
            api,
            driver=COMPUTE_DOMAIN_DRIVER,
            node=node,
            conditions=common.claim_conditions,
            on_lost=metrics.report_failed,
        )
        self.peers = PeerKeeper(
            api, self.directories, records=lambda: self.claims.records(), node=node
        )
        self.news = ReadinessNews(
            self.directories.root,
            domains=lambda: {step.domain for _, step in daemons_of(self.claims.records())},
            wake=lambda: self.claims.wake(),
        )
        rules = DomainRules(
            driver=COMPUTE_DOMAIN_DRIVER,
            node=node,
            namespaces=options.namespaces,
            gates=gates,
            boot_id=boot_id,
            cdi_id=cdi.device_id,
            host_managed=host_managed,
        )
        self._host_managed = host_managed
        self.clique_label = CliqueLabel(api, node=node, clique=lambda: self.fabric.known)
        observer = Observers(metrics, reports.reporter)
        self._checkpoint = state_dir / NAME
        self._take_over = partial(
            take_over,
            state_dir,
            node=EarlierNode(COMPUTE_DOMAIN_DRIVER, node, boot_id),
            observer=observer,
            make=EarlierClaims(
                DaemonFiles(store),
                gates=gates,
                home=common.namespace,
                cdi_id=cdi.device_id,
                clique=lambda: self.fabric.known,
                host_managed=host_managed,
            ),
        )
        base = BaseFile(common.cdi_root, state_dir=state_dir, dry_run=common.sweep_dry_run)
        self.leavings = DomainLeavings(
            self.directories,
            base,
            records=lambda: self.claims.records(),
            fences=lambda: self.claims.fences(),
        )
        claims = NodeClaims(
            api,
            node=NodeFacts(
                pool=node,
                planner=DomainPlanner(Domains(api), rules=rules, clique=lambda: self.fabric.clique),
                boot_id=boot_id,
                inventory=lambda: self.keeper.current,
            ),
            cdi=cdi,
            settings={},
            state_dir=state_dir,
            own_steps=DomainSteps(
                api,
                directories=self.directories,
                cdi=cdi,
                node=node,
                boot_id=boot_id,
                loop=self._loop,
                host=HostImex(machine.driver_root, socket=options.imex_host_socket_path)
                if host_managed
                else None,
            ),
            observer=Observers(metrics, reports.reporter, _Followers(self._follow)),
            limits=Limits(
                retry_budget_s=retry_budget_s,
                answer_within_s=ANSWER_WITHIN_S,
                sweep_dry_run=common.sweep_dry_run,
            ),
        )
        super().__init__(
            common,
            driver=COMPUTE_DOMAIN_DRIVER,
            gates=gates,
            metrics=metrics,
            claims=claims,
            reports=reports,
            publisher=Publisher(api, driver=COMPUTE_DOMAIN_DRIVER, node=node),
            duties=(
                Duty("inventory", self.keeper.run, last_turn_s=self._last_look_s),
                Duty(
                    "fabric",
                    self.fabric.run,
                    last_turn_s=lambda: self.fabric.last_turn_s,
                    patience_s=1800.0,
                ),
                Duty("readiness", self.news.run),
                Duty("peers", self.peers.run, in_role=True),
                Duty("domain directories", self.leavings.run, in_role=True),
                *(
                    [Duty("clique label", self.clique_label.run, in_role=True)]
                    if options.gpu_clique_label_enabled
                    else []
                ),
            ),
            beside_others=beside_others,
        )
        metrics.count_slice_writes(self.publisher.writes)

    async def take_over(self) -> None:
        """The clique is asked for first: claims of domains whose daemon is gone do not tell it."""
        if self._checkpoint.exists():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.fabric.look(), _FIRST_LOOK_S)
        await self._take_over()

    def unready(self) -> str:
        if self.fabric.problem:
            return f"the NVLink clique is not known: {self.fabric.problem}"
        return ""

    def _publish(self) -> None:
        """Only now: a node whose fabric is not up would take pods and let them wait."""
        self.publisher.desire([published(with_daemon=not self._host_managed)])
        self.clique_label.look_again()

    def _take_inventory(self, inventory: Inventory) -> None:
        self.claims.hardware_changed()

    def _follow(self) -> None:
        """Claims have come or gone."""
        self.peers.look_again()
        self.news.look_again()
        self.claims.wake()

    def _last_look_s(self) -> float:
        return asyncio.get_running_loop().time() - self.keeper.age_s


class _Followers(ClaimObserver):
    """Calls `follow` when claims have come or gone."""

    def __init__(self, follow: Callable[[], None]) -> None:
        self._follow = follow

    def prepared_devices(self, counts: Mapping[str, int]) -> None:
        self._follow()
