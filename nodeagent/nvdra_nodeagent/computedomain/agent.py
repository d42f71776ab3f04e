"""The ComputeDomain driver of one node: wires its rooms together; `NodeAgent` runs them."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

from nvdra_api.names import COMPUTE_DOMAIN_DRIVER
from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.migration import NAME, take_over
from nvdra_nodeagent.claims.books import NodeFacts
from nvdra_nodeagent.claims.observer import ClaimObserver, Observers
from nvdra_nodeagent.claims.service import Limits, NodeClaims
from nvdra_nodeagent.computedomain.base_file import BaseFile
from nvdra_nodeagent.computedomain.clique_label import CliqueLabel
from nvdra_nodeagent.computedomain.devices import published
from nvdra_nodeagent.computedomain.domains import Domains
from nvdra_nodeagent.computedomain.earlier_claims import DaemonFiles, EarlierClaims
from nvdra_nodeagent.computedomain.fabric import FabricKeeper, GatedFabric
from nvdra_nodeagent.computedomain.imex_view import ImexView
from nvdra_nodeagent.computedomain.label_keeper import LabelKeeper
from nvdra_nodeagent.computedomain.leavings import DomainLeavings
from nvdra_nodeagent.computedomain.metrics import DomainMetrics
from nvdra_nodeagent.computedomain.news import DaemonNews
from nvdra_nodeagent.computedomain.peers import PeerKeeper
from nvdra_nodeagent.computedomain.plan import DomainPlanner
from nvdra_nodeagent.computedomain.readiness import daemons_of
from nvdra_nodeagent.computedomain.site import Site
from nvdra_nodeagent.duties import Duty
from nvdra_nodeagent.inventory.keeper import InventoryKeeper
from nvdra_nodeagent.node_agent import NodeAgent
from nvdra_nodeagent.slices.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from nvdra_api.gates import FeatureGates
    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.computedomain.options import DomainOptions
    from nvdra_nodeagent.hardware.ports import Machine
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.program.metrics import AgentMetrics

PREPARE_BUDGET_S: Final = 38.0
ANSWER_WITHIN_S: Final = 42.0
"""The kubelet waits 45 s, and most of a prepare is waiting for a daemon to start."""

_FIRST_LOOK_S: Final = 10.0
_RARE_S: Final = 1800.0
"""For what looks every ten minutes."""


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
        site = Site(options, api, machine, gates, metrics, boot_id)
        site.check()
        self._site = site
        self._state_dir = site.make_directories()
        self._is_ending: Callable[[], bool] = lambda: False
        self._make_keepers()
        self.directories = site.directories(self._state_dir)
        self._make_followers()
        self._store = site.cdi_store()
        self._cdi = site.cdi(self._store, self.directories, lambda: self.keeper.current)
        reports = site.reports()
        observer = Observers(metrics, reports.reporter)
        self._take_over = self._make_take_over(observer)
        super().__init__(
            options.common,
            driver=COMPUTE_DOMAIN_DRIVER,
            gates=gates,
            metrics=metrics,
            claims=self._make_claims(
                Observers(observer, _Followers(self._follow)), budget_s=retry_budget_s
            ),
            reports=reports,
            publisher=Publisher(api, driver=COMPUTE_DOMAIN_DRIVER, node=site.node),
            duties=self._own_duties(),
            beside_others=beside_others,
        )
        metrics.count_slice_writes(self.publisher.writes)

    def _make_keepers(self) -> None:
        """Whoever looks at the hardware."""
        site = self._site
        self.keeper = InventoryKeeper(
            site.machine,
            on_change=self._take_inventory,
            interval_s=site.options.common.rescan_interval,
        )
        site.metrics.watch_inventory(lambda: self.keeper.age_s)
        rules = GatedFabric(site.gates, host_managed=site.host_managed)
        self.fabric = FabricKeeper(
            site.machine.nvml, rules, on_change=lambda clique: self._publish()
        )

    def _make_followers(self) -> None:
        """Whoever goes by what claims hold."""
        site, node, records = self._site, self._site.node, self._records
        self.peers = PeerKeeper(site.api, self.directories, records=records, node=node)
        self.imex = ImexView(self.directories, records=records)
        self.label = LabelKeeper(
            Domains(site.api), records=records, verify=lambda: self.claims.verify()
        )
        self.news = DaemonNews(
            self._state_dir,
            domains=lambda: {step.domain for _, step in daemons_of(records())},
            look=self._look_at_daemons,
            wake=lambda: self.claims.wake(),
        )
        self.clique_label = CliqueLabel(
            site.api,
            node=node,
            clique=lambda: self.fabric.known,
            is_ending=lambda: self._is_ending(),
        )
        dry_run = site.options.common.sweep_dry_run
        self.leavings = DomainLeavings(
            self.directories,
            BaseFile(site.options.common.cdi_root, state_dir=self._state_dir, dry_run=dry_run),
            records=records,
            fences=lambda: self.claims.fences(),
        )
        self._counts = DomainMetrics(site.metrics.registry)
        self._counts.watch_daemons(self.imex.words)

    def _make_claims(self, observer: ClaimObserver, *, budget_s: float) -> NodeClaims:
        site = self._site
        rules = site.rules(self._cdi, driver_version=lambda: self.keeper.current.driver_version)
        planner = DomainPlanner(Domains(site.api), rules=rules, clique=lambda: self.fabric.clique)
        return NodeClaims(
            site.api,
            node=NodeFacts(
                pool=site.node,
                planner=planner,
                boot_id=site.boot_id,
                inventory=lambda: self.keeper.current,
            ),
            cdi=self._cdi,
            settings={},
            state_dir=self._state_dir,
            own_steps=site.steps(
                self.directories,
                self._cdi,
                on_wait=self._counts.waited,
                is_doubtful=self.label.is_doubtful,
            ),
            observer=observer,
            limits=Limits(
                retry_budget_s=budget_s,
                answer_within_s=ANSWER_WITHIN_S,
                sweep_dry_run=site.options.common.sweep_dry_run,
            ),
        )

    def _make_take_over(
        self, observer: ClaimObserver
    ) -> Callable[[], Coroutine[object, object, object]]:
        site = self._site
        return partial(
            take_over,
            self._state_dir,
            node=EarlierNode(COMPUTE_DOMAIN_DRIVER, site.node, site.boot_id),
            observer=observer,
            make=EarlierClaims(
                DaemonFiles(self._store),
                gates=site.gates,
                home=site.options.common.namespace,
                cdi_id=self._cdi.device_id,
                clique=lambda: self.fabric.known,
                host_managed=site.host_managed,
            ),
        )

    def _own_duties(self) -> tuple[Duty, ...]:
        fabric, news, peers, leavings = self.fabric, self.news, self.peers, self.leavings
        node_label = self.label
        duties = (
            Duty("inventory", self.keeper.run, last_turn_s=self._last_look_s),
            Duty("fabric", fabric.run, last_turn_s=lambda: fabric.last_turn_s, patience_s=_RARE_S),
            Duty("daemon news", news.run, last_turn_s=lambda: news.last_turn_s),
            Duty("peers", peers.run, in_role=True, last_turn_s=lambda: peers.last_turn_s),
            Duty(
                "node label",
                node_label.run,
                in_role=True,
                last_turn_s=lambda: node_label.last_turn_s,
            ),
            Duty(
                "domain directories",
                leavings.run,
                in_role=True,
                last_turn_s=lambda: leavings.last_turn_s,
                patience_s=_RARE_S,
            ),
        )
        if not self._site.options.gpu_clique_label_enabled:
            return duties
        label = self.clique_label
        return (
            *duties,
            Duty(
                "clique label",
                label.run,
                in_role=True,
                last_turn_s=lambda: label.last_turn_s,
                patience_s=_RARE_S,
            ),
        )

    async def take_over(self) -> None:
        """The clique is asked for first: claims of domains whose daemon is gone do not tell it."""
        if (self._state_dir / NAME).exists():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.fabric.look(), _FIRST_LOOK_S)
        await self._take_over()

    async def run(self, stop: asyncio.Event) -> None:
        self._is_ending = stop.is_set
        await super().run(stop)

    def unready(self) -> str:
        if self.fabric.problem:
            return f"the NVLink clique is not known: {self.fabric.problem}"
        return ""

    def _publish(self) -> None:
        """Only now: a node whose fabric is not up would take pods and let them wait."""
        self.publisher.desire([published(with_daemon=not self._site.host_managed)])
        self.clique_label.look_again()

    def _take_inventory(self, inventory: Inventory) -> None:
        self.fabric.look_again()
        self.claims.hardware_changed()

    def _records(self) -> Sequence[Record]:
        return self.claims.records()

    async def _look_at_daemons(self) -> None:
        """:raises AgentError: the records of claims cannot be read."""
        await self.claims.refresh()
        self.peers.look_again()
        await self.imex.look()

    def _follow(self) -> None:
        """Claims have come or gone."""
        self.peers.look_again()
        self.label.look_again()
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
