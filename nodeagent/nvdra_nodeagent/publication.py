"""From the inventory to the slices that stand in the API: one pool for the GPUs of one node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_api.names import GPU_DRIVER
from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, ServerError, TooManyRequests, Unreachable
from nvdra_kube.semver import SemverError, server_minor
from nvdra_nodeagent.claims.observer import ClaimObserver
from nvdra_nodeagent.slices.errors import FieldsDropped
from nvdra_nodeagent.slices.missing import missing_devices
from nvdra_nodeagent.slices.planner import plan_pool
from nvdra_nodeagent.slices.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nvdra_api.gates import FeatureGates
    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.inventory.model import Device, Inventory
    from nvdra_nodeagent.program.metrics import AgentMetrics
    from nvdra_nodeagent.slices.errors import SlicesRefused
    from nvdra_nodeagent.slices.missing import Held, MissingDevice

log = structlog.get_logger(__name__)

_OLDEST_SERVER: Final = (0, 0)


class Publication(ClaimObserver):
    """Plans the pool anew for each inventory, and when claims take or give back what vanished, and
    hands it to its `publisher`."""

    def __init__(
        self,
        api: KubeApi,
        *,
        node: str,
        gates: FeatureGates,
        metrics: AgentMetrics,
        held: Callable[[], Iterable[Held]] = tuple,
    ) -> None:
        """`held` are the devices that claims hold: they stay published when they vanish."""
        self.publisher = Publisher(api, driver=GPU_DRIVER, node=node, on_degraded=self._degrade)
        metrics.count_slice_writes(self.publisher.writes)
        self._api = api
        self._node = node
        self._gates = gates
        self._metrics = metrics
        self._list_attributes = gates["DRAListTypeAttributes"]
        self._server: tuple[int, int] | None = None
        self._inventory: Inventory | None = None
        self._held = held
        self._missing: tuple[MissingDevice, ...] = ()
        self._seen: dict[str, Device] = {}
        self._taints = True
        self._announced: set[str] = set()

    def publish(self, inventory: Inventory) -> None:
        """Make this the inventory that the slices show."""
        self._inventory = inventory
        self._seen.update(inventory.devices)
        self._plan()

    def prepared_devices(self, counts: Mapping[str, int]) -> None:
        """Claims have taken or given back devices: one that vanished may have been the last's."""
        if self._missing:
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
        found = missing_devices(self._held(), self._inventory, seen=self._seen)
        self._note_missing(found)
        plan = plan_pool(
            self._inventory,
            node=self._node,
            server=self._server,
            list_attributes=self._list_attributes,
            missing=found if self._taints else (),
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
        if self._give_in(problem):
            self._plan()

    def _give_in(self, problem: FieldsDropped | SlicesRefused) -> bool:
        """Whether there is something to leave out. Without its taint a device that is not there
        would look like any other."""
        before = (self._taints, self._list_attributes)
        dropped = isinstance(problem, FieldsDropped) and problem.mentions("taints")
        if self._missing and (dropped or not self._list_attributes):
            self._taints = False
        else:
            self._list_attributes = False
        return before != (self._taints, self._list_attributes)

    def _note_missing(self, found: tuple[MissingDevice, ...]) -> None:
        """Say it once of each device."""
        known = {device.name for device in self._missing}
        for device in found:
            if device.name not in known:
                log.error("a device that a claim holds is gone", device=device.name)
        for name in known - {device.name for device in found}:
            log.info("no claim holds a device that was gone, or it is back", device=name)
        self._missing = found
        wanted = {device.name for device in found}
        if self._inventory:
            wanted |= self._inventory.devices.keys()
        self._seen = {name: seen for name, seen in self._seen.items() if name in wanted}

    def _announce(self, names: list[str]) -> None:
        for name in names:
            if name not in self._announced:
                # The name stands inside the event: scripts look for exactly this text.
                log.info(f"About to announce device {name}")  # noqa: G004
        self._announced = set(names)
