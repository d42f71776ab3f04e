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
        self.publication = Publication(
            api,
            node=options.node_name,
            gates=gates,
            metrics=metrics,
            held=lambda: self.claims.held_devices(),
        )
        self.keeper = InventoryKeeper(
            machine, on_change=self._take_inventory, interval_s=options.rescan_interval
        )
        metrics.watch_inventory(lambda: self.keeper.age_s)
        # Not from NVML: a call to the driver that hangs must not hold up the claims.
        builder = CdiBuilder(machine, driver_version=lambda: self.keeper.current.driver_version)
        cdi = ClaimFiles(builder, CdiStore(options.cdi_root))
        reports = ReportDesk(
            api,
            driver=GPU_DRIVER,
            node=options.node_name,
            conditions=options.claim_conditions,
            on_lost=metrics.report_failed,
        )
        observer = Observers(metrics, reports.reporter)
        self._take_over = partial(
            take_over,
            state_dir,
            node=EarlierNode(GPU_DRIVER, options.node_name, boot_id),
            observer=observer,
        )
        claims = NodeClaims(
            api,
            node=NodeFacts(
                pool=options.node_name,
                planner=GpuPlanner(
                    PlanRules(driver=GPU_DRIVER, gates=gates, cdi_id=cdi.device_id),
                    lambda: self.keeper.current,
                ),
                boot_id=boot_id,
                inventory=lambda: self.keeper.current,
            ),
            cdi=cdi,
            settings={TimeSliceStep: TimeSliceSetting(machine.nvml, machine.nvidia_smi)},
            state_dir=state_dir,
            observer=Observers(
                metrics, reports.reporter, self.publication, Suspicion(self.keeper.suspect)
            ),
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
            duties=(
                Duty("server version", self.publication.learn_server),
                Duty("inventory", self.keeper.run, last_turn_s=self._last_look_s),
            ),
            beside_others=beside_others,
        )

    async def take_over(self) -> None:
        await self._take_over()

    def _take_inventory(self, inventory: Inventory) -> None:
        self.publication.publish(inventory)
        self.claims.hardware_changed()

    def _last_look_s(self) -> float:
        return asyncio.get_running_loop().time() - self.keeper.age_s
