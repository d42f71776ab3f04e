"""The GPU driver of one node: wires the rooms together; `NodeAgent` runs them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from nvdra_api.names import GPU_DRIVER
from nvdra_nodeagent.cdi.builder import CdiBuilder
from nvdra_nodeagent.cdi.claim_files import ClaimFiles
from nvdra_nodeagent.cdi.store import CdiStore
from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.migration import take_over
from nvdra_nodeagent.claims.books import NodeFacts
from nvdra_nodeagent.claims.observer import Observers
from nvdra_nodeagent.claims.patience import DEFAULT_BUDGET_S
from nvdra_nodeagent.claims.plan import GpuPlanner, PlanRules
from nvdra_nodeagent.claims.service import Limits, NodeClaims
from nvdra_nodeagent.duties import Duty
from nvdra_nodeagent.inventory.keeper import InventoryKeeper
from nvdra_nodeagent.node_agent import NodeAgent, make_directories
from nvdra_nodeagent.publication import Publication
from nvdra_nodeagent.reporting.desk import ReportDesk
from nvdra_nodeagent.steps.time_slice import TimeSliceSetting, TimeSliceStep
from nvdra_nodeagent.suspicion import Suspicion

if TYPE_CHECKING:
    from nvdra_api.gates import FeatureGates
    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.hardware.ports import Machine
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.program.metrics import AgentMetrics
    from nvdra_nodeagent.program.options import Options


class GpuAgent(NodeAgent):
    """Publishes the node's GPUs and prepares claims for `gpu.nvidia.com`."""

    def __init__(
        self,
        options: Options,
        *,
        api: KubeApi,
        machine: Machine,
        gates: FeatureGates,
        metrics: AgentMetrics,
        boot_id: str,
        retry_budget_s: float = DEFAULT_BUDGET_S,
        beside_others: bool = False,
    ) -> None:
        """`beside_others` as `NodeAgent` has it."""
        state_dir = make_directories(options, GPU_DRIVER)
        node = options.node_name
        self.keeper = InventoryKeeper(
            machine, on_change=self._take_inventory, interval_s=options.rescan_interval
        )
        metrics.watch_inventory(lambda: self.keeper.age_s)
        self.publication = Publication(
            api, node=node, gates=gates, metrics=metrics, held=lambda: self.claims.held_devices()
        )
        reports = _report_desk(api, options, metrics)
        observer = Observers(metrics, reports.reporter)
        earlier = EarlierNode(GPU_DRIVER, node, boot_id)
        self._take_over = partial(take_over, state_dir, node=earlier, observer=observer)
        cdi = self._cdi_files(machine, options)
        claims = NodeClaims(
            api,
            node=self._facts(PlanRules(GPU_DRIVER, gates, cdi.device_id), node, boot_id),
            cdi=cdi,
            settings={TimeSliceStep: TimeSliceSetting(machine.nvml, machine.nvidia_smi)},
            state_dir=state_dir,
            observer=Observers(observer, self.publication, Suspicion(self.keeper.suspect)),
            limits=Limits(retry_budget_s=retry_budget_s, sweep_dry_run=options.sweep_dry_run),
        )
        super().__init__(
            options,
            driver=GPU_DRIVER,
            gates=gates,
            metrics=metrics,
            claims=claims,
            reports=reports,
            publisher=self.publication.publisher,
            duties=self._own_duties(),
            beside_others=beside_others,
        )

    def _cdi_files(self, machine: Machine, options: Options) -> ClaimFiles:
        """Not by way of NVML: a call to the driver that hangs must not hold up the claims."""
        builder = CdiBuilder(machine, driver_version=lambda: self.keeper.current.driver_version)
        return ClaimFiles(builder, CdiStore(options.cdi_root))

    def _facts(self, rules: PlanRules, node: str, boot_id: str) -> NodeFacts:
        def inventory() -> Inventory:
            return self.keeper.current

        planner = GpuPlanner(rules, inventory)
        return NodeFacts(pool=node, planner=planner, boot_id=boot_id, inventory=inventory)

    def _own_duties(self) -> tuple[Duty, ...]:
        return (
            Duty("server version", self.publication.learn_server),
            Duty("inventory", self.keeper.run, last_turn_s=self._last_look_s),
        )

    async def take_over(self) -> None:
        await self._take_over()

    def _take_inventory(self, inventory: Inventory) -> None:
        self.publication.publish(inventory)
        self.claims.hardware_changed()

    def _last_look_s(self) -> float:
        return asyncio.get_running_loop().time() - self.keeper.age_s


def _report_desk(api: KubeApi, options: Options, metrics: AgentMetrics) -> ReportDesk:
    return ReportDesk(
        api,
        driver=GPU_DRIVER,
        node=options.node_name,
        conditions=options.claim_conditions,
        on_lost=metrics.report_failed,
    )
