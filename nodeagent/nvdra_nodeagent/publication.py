"""From the inventory to the slices that stand in the API: one pool for the GPUs of one node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_api.names import GPU_DRIVER
from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, ServerError, TooManyRequests, Unreachable
from nvdra_kube.semver import SemverError, server_minor
from nvdra_nodeagent.slices.planner import plan_pool
from nvdra_nodeagent.slices.publisher import Publisher

if TYPE_CHECKING:
    from nvdra_api.gates import FeatureGates
    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.program.metrics import AgentMetrics
    from nvdra_nodeagent.slices.errors import FieldsDropped, SlicesRefused

log = structlog.get_logger(__name__)

_OLDEST_SERVER: Final = (0, 0)


class Publication:
    """Plans the pool anew for each inventory and hands it to its `publisher`."""

    def __init__(
        self, api: KubeApi, *, node: str, gates: FeatureGates, metrics: AgentMetrics
    ) -> None:
        self.publisher = Publisher(api, driver=GPU_DRIVER, node=node, on_degraded=self._degrade)
        metrics.count_slice_writes(self.publisher.writes)
        self._api = api
        self._node = node
        self._gates = gates
        self._metrics = metrics
        self._list_attributes = gates["DRAListTypeAttributes"]
        self._server: tuple[int, int] | None = None
        self._inventory: Inventory | None = None
        self._announced: set[str] = set()

    def publish(self, inventory: Inventory) -> None:
        """Make this the inventory that the slices show."""
        self._inventory = inventory
        self._plan()

    async def learn_server(self) -> None:
        """The server's version decides the slices' layout: nothing is published before."""
        version = await self._server_version()
        try:
            self._server = server_minor(version)
        except SemverError as error:
            log.warning("API server's version not known, slices get the plain form", cause=error)
            self._server = _OLDEST_SERVER
        else:
            for warning in self._gates.cluster_warnings(self._server):
                log.warning("feature gate and cluster do not fit", cause=warning, server=version)
        self._plan()

    async def _server_version(self) -> str:
        """The node may be up before its API server; "" where the server does not tell."""
        backoff = Backoff()
        while True:
            try:
                return await self._api.server_version()
            except (Unreachable, ServerError, TooManyRequests) as error:
                delay_s = backoff.failed(at_least_s=error.retry_after_s or 0.0)
                log.warning("API server not reached", cause=str(error), retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
            except ApiError as error:
                log.warning("API server's version refused", cause=str(error))
                return ""

    def _plan(self) -> None:
        if self._server is None or self._inventory is None:
            return
        plan = plan_pool(
            self._inventory,
            node=self._node,
            server=self._server,
            list_attributes=self._list_attributes,
        )
        self._metrics.defects(len(self._inventory.defects) + len(plan.defects))
        for defect in plan.defects:
            log.warning("device left out", device=defect.device, cause=defect.cause)
        self._announce([device.name for content in plan.slices for device in content.devices])
        self.publisher.desire(plan.slices)

    def _degrade(self, problem: FieldsDropped | SlicesRefused) -> None:
        """Better a pool in the plain form than none: what the cluster refuses is left out."""
        self._metrics.publish_failed()
        log.error("the API server does not take the slices as planned", cause=str(problem))
        if self._list_attributes:
            self._list_attributes = False
            self._plan()

    def _announce(self, names: list[str]) -> None:
        for name in names:
            if name not in self._announced:
                # The name stands inside the event: scripts look for exactly this text.
                log.info(f"About to announce device {name}")  # noqa: G004
        self._announced = set(names)
