"""Keeps the clique of the node: waits for the fabric at boot, looks again from time to time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from nvdra_nodeagent.computedomain.clique import (
    FabricUnsettled,
    GpuFabric,
    clique_of,
    is_registering,
)
from nvdra_nodeagent.computedomain.driver_version import check_names_possible
from nvdra_nodeagent.errors import NodeFault, Retryable
from nvdra_nodeagent.hardware.errors import HardwareError, NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_api.gates import FeatureGates
    from nvdra_nodeagent.hardware.ports import FabricInfo, Nvml, NvmlDevice

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 600.0
UNSETTLED_S: Final = 30.0
"""Where a GPU is passed over that has not registered (yet): the node may still join a clique."""

_FIRST_PAUSE_S: Final = 0.5
_LAST_PAUSE_S: Final = 10.0


class FabricRules(Protocol):
    """The first two as `clique_of` has them. `by_name`: daemons find each other by name, for which
    drivers of nodes with a fabric have to be new enough."""

    @property
    def strict(self) -> bool: ...

    @property
    def partitioned(self) -> bool: ...

    @property
    def by_name(self) -> bool: ...


class GatedFabric:
    """The `FabricRules` of feature gates."""

    def __init__(self, gates: FeatureGates, *, host_managed: bool) -> None:
        self.strict = gates["CrashOnNVLinkFabricErrors"]
        self.partitioned = gates["FabricManagerPartitioning"]
        self.by_name = gates["IMEXDaemonsWithDNSNames"] and not host_managed


class FabricKeeper:
    """`run` belongs to a task of the owner.

    A clique that is known stays until the GPUs name another one: a fabric that is being reset does
    not take the node out of its clique.
    """

    def __init__(
        self,
        nvml: Nvml,
        rules: FabricRules,
        *,
        on_change: Callable[[str], None] = lambda clique: None,
        interval_s: float = INTERVAL_S,
        unsettled_s: float = UNSETTLED_S,
    ) -> None:
        self._nvml = nvml
        self._rules = rules
        self._on_change = on_change
        self._interval_s = interval_s
        self._unsettled_s = unsettled_s
        self._passed_over = False
        self._clique: str | None = None
        self._settled = asyncio.Event()
        self._changed = asyncio.Event()
        self._fault: NodeFault | None = None
        self.problem = "the GPUs have not been asked yet"
        """Why the last look brought no clique; "" when it did."""
        self.last_turn_s = 0.0

    @property
    def known(self) -> str | None:
        """As `clique`; None while it is not known."""
        return self._clique

    @property
    def clique(self) -> str:
        """ "" on a node without a fabric. :raises Retryable: not known yet, or of no use."""
        if self._clique is None and self._fault:
            raise self._fault
        if self._clique is None:
            raise Retryable(
                "FabricNotReady",
                f"the NVLink clique of this node is not known: {self.problem}",
                hint="look at the fabric manager of the node, or of its rack: nvidia-smi -q",
            )
        return self._clique

    async def wait_settled(self) -> None:
        """Return once the clique is known."""
        await self._settled.wait()

    async def run(self) -> None:
        """Eternal: soon again while the clique is not known, later at long intervals."""
        pause_s = _FIRST_PAUSE_S
        while True:
            self.last_turn_s = asyncio.get_running_loop().time()
            self._changed.clear()
            await self.look()
            if self._clique is None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    self._unsettled_s if self._passed_over else self._interval_s
                ):
                    await self._changed.wait()

    def look_again(self) -> None:
        """The hardware is another one, or its driver. In the loop only."""
        self._changed.set()

    async def look(self) -> None:
        """Ask all GPUs once, in a thread. Never raises."""
        started = time.monotonic()
        try:
            found = await asyncio.to_thread(self._ask)
        except (HardwareError, FabricUnsettled, NodeFault) as error:
            if str(error) != self.problem:
                log.warning("NVLink clique not known", cause=str(error), keeps=self._clique)
            self.problem = str(error)
            self._fault = error if isinstance(error, NodeFault) else None
            return
        self.problem, self._fault = "", None
        if found == self._clique or (self._clique and not found):
            return
        log.info("NVLink clique", clique=found, before=self._clique, took_s=_since(started))
        self._clique = found
        self._settled.set()
        self._on_change(found)

    def _ask(self) -> str:
        self._nvml.init()
        devices = [self._nvml.device(index) for index in range(self._nvml.device_count())]
        answers = [GpuFabric(device.pci_bus_id(), _info(device)) for device in devices]
        if not answers:
            raise FabricUnsettled("the driver shows no GPU")
        self._passed_over = any(map(is_registering, answers))
        rules = self._rules
        found = clique_of(answers, strict=rules.strict, partitioned=rules.partitioned)
        if found and rules.by_name:
            check_names_possible(self._nvml.driver_version())
        return found


def _info(device: NvmlDevice) -> FabricInfo | None:
    try:
        return device.fabric_info()
    except NotSupported:
        return None


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
