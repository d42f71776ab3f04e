"""Terms of leadership: the controller works while this replica leads, and only then."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import structlog

from nvdra_kube.lease import Elector, LeadershipLost, identity_of
from nvdra_operator.controller import Controller
from nvdra_operator.gate import GatedApi, NotLeading, WriteGate

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import KubeApi
    from nvdra_operator.domains.registry import Domains
    from nvdra_operator.lifecycle import Lifecycle
    from nvdra_operator.metrics import ControllerMetrics
    from nvdra_operator.mirror import Mirror
    from nvdra_operator.options import Options

    LifecycleOf = Callable[[Mirror, Domains, WriteGate], Lifecycle]

log = structlog.get_logger(__name__)


class Program:
    """Stands for the lease, where there is an election, and leads when it has it."""

    def __init__(
        self,
        options: Options,
        *,
        api: KubeApi,
        lease_api: KubeApi,
        metrics: ControllerMetrics,
        lifecycle: LifecycleOf,
        overrun: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lease_api` has a line of its own, so that no other call can delay a renewal. `overrun`
        is called when the work goes on though the lease is about to be another's. `clock` is what
        the loop's time is taken from; any thread may ask it."""
        self._options = options
        self._api = api
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._controller: Controller | None = None
        self.elector: Elector | None = None
        self.gate = WriteGate.always_open()
        if options.election:
            self.elector = Elector(
                lease_api,
                namespace=options.lease_namespace,
                name=options.lease_name,
                identity=identity_of(options.pod_name),
                times=options.election,
                overrun=overrun or _end_at_once,
            )
            elector = self.elector
            self.gate = WriteGate(lambda: elector.deadline_s, clock=clock)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises what ends the controller for another reason than the loss of
        the lease."""
        work = asyncio.create_task(self._stand(), name="program")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                log.info("stopping")
        finally:
            stopping.cancel()
            if not work.done():
                work.cancel()
            await asyncio.gather(work, stopping, return_exceptions=True)
        if not work.cancelled():
            work.result()

    def unhealthy(self) -> str:
        """What is wrong; empty when nothing is."""
        wrong = self.elector.unhealthy() if self.elector else ""
        return wrong or (self._controller.unhealthy() if self._controller else "")

    def unready(self) -> str:
        """A replica that stands by is ready: it can take over."""
        if self._controller and not self._controller.mirror.has_synced:
            return "the cluster's objects have not been read yet"
        return "" if self._controller or self.elector else "starting"

    async def _stand(self) -> None:
        if self.elector is None:
            await self._term()
            return
        while True:
            try:
                await self.elector.run(self._term)
            except* (LeadershipLost, NotLeading) as group:
                log.warning("leadership lost", cause=str(group.exceptions[0]))

    async def _term(self) -> None:
        controller = Controller(
            GatedApi(self._api, self.gate),
            self._options.settings,
            instance=self._options.pod_name,
            lifecycle=lambda mirror, domains: self._lifecycle(mirror, domains, self.gate),
            formed=self._metrics.formed,
        )
        self._controller, self._metrics.domains = controller, controller.domains
        try:
            await controller.run()
        finally:
            self._controller, self._metrics.domains = None, None


def _end_at_once() -> None:
    """The last resort: another replica is about to lead, and this one cannot be stopped."""
    os._exit(1)
