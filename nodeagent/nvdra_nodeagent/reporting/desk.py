"""Reporter and event recorder of an agent, as its owner starts and ends them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from nvdra_kube.events import EventRecorder
from nvdra_nodeagent.reporting.reporter import ClaimReporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.reporting.report import ConditionPolicy

CLOSE_S: Final = 4.0


class ReportDesk:
    """`reporter` hears of claims; `run` writes what it heard, `close` what is left in the end."""

    def __init__(
        self,
        api: KubeApi,
        *,
        driver: str,
        node: str,
        conditions: ConditionPolicy,
        on_lost: Callable[[str], None],
    ) -> None:
        """`on_lost` is told `event` or `conditions` for each that did not get to the server."""
        self._recorder = EventRecorder(
            api, component=driver, instance=node, on_dropped=partial(on_lost, "event")
        )
        self.reporter = ClaimReporter(
            api,
            driver=driver,
            node=node,
            recorder=self._recorder,
            conditions=conditions,
            on_lost=on_lost,
        )

    async def run(self) -> None:
        """Eternal, cancelled by its owner."""
        await self.reporter.run()

    def last_turn_s(self) -> float:
        """When `run` last came round, on the loop's clock."""
        return self.reporter.last_turn_s

    async def close(self) -> None:
        """After `run`: write what is left, for at most `CLOSE_S`."""
        await self.reporter.drain(timeout_s=CLOSE_S / 2)
        await self._recorder.aclose(timeout_s=CLOSE_S / 2)
