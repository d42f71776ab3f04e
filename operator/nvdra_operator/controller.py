"""What the leader does: mirrors the cluster, keeps domains, sweeps what is left over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.events import EventRecorder
from nvdra_operator.domains.domain import TEARDOWN_PATIENCE_S
from nvdra_operator.domains.registry import Domains
from nvdra_operator.lifecycle import MirrorLifecycle
from nvdra_operator.mirror import Mirror
from nvdra_operator.sweeper import Sweeper

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import KubeApi
    from nvdra_operator.lifecycle import Lifecycle
    from nvdra_operator.settings import DriverSettings

log = structlog.get_logger(__name__)

COMPONENT: Final = "nvidia-compute-domain-controller"
WATCH_SILENCE_S: Final = 600.0
# Whoever follows domains has gone deaf when one of them is not followed for so long.
NEGLECT_S: Final = 120.0


class Controller:
    """One term of leadership. `api` has to be gated: it is used for every write."""

    def __init__(
        self,
        api: KubeApi,
        settings: DriverSettings,
        *,
        instance: str,
        lifecycle: Callable[[Mirror, Domains], Lifecycle] = MirrorLifecycle,
        formed: Callable[[float], None] = lambda _: None,
        patience_s: float = TEARDOWN_PATIENCE_S,
        settle_s: float = 2.0,
    ) -> None:
        """`instance` is the pod's name, for Events; `formed` hears how long domains took."""
        self.mirror = Mirror(api, settings)
        self._recorder = EventRecorder(api, component=COMPONENT, instance=instance)
        self.domains = Domains(
            api=api,
            mirror=self.mirror,
            recorder=self._recorder,
            settings=settings,
            formed=formed,
            patience_s=patience_s,
        )
        self._sweeper = Sweeper(api, self.mirror, self.domains.executor, settle_s=settle_s)
        self._lifecycle = lifecycle(self.mirror, self.domains)

    async def run(self) -> None:
        """Until cancelled. Everything that it started has ended when it returns."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.mirror.run(), name="mirror")
                await self.mirror.wait_synced()
                log.info("controller started", domains=len(self.mirror.domains()))
                group.create_task(self._sweeper.run(), name="sweeper")
                group.create_task(self._lifecycle.run(), name="lifecycle")
        finally:
            await self._recorder.aclose(timeout_s=0.5)

    def unhealthy(self) -> str:
        """What does not turn any more; empty when everything does."""
        silent_s = asyncio.get_running_loop().time() - self.mirror.last_turn_s
        if self.mirror.has_synced and silent_s > WATCH_SILENCE_S:
            return f"a watch has been silent for {silent_s:.0f} s"
        if domain := self.domains.neglected(for_s=NEGLECT_S):
            return f"nobody keeps ComputeDomain {domain}"
        return ""
