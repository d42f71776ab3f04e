"""The node's label `nvidia.com/gpu.clique`, for schedulers that place jobs by NVLink clique."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_api.names import LABEL_NODE_CLIQUE
from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError
from nvdra_kube.resources import NODES

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import KubeApi

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 600.0
_END_S: Final = 5.0


class CliqueLabel:
    """`run` keeps the label; on a node without a fabric there is none. `look_again` may be called
    at any time in the loop."""

    def __init__(
        self,
        api: KubeApi,
        *,
        node: str,
        clique: Callable[[], str | None],
        is_ending: Callable[[], bool],
    ) -> None:
        """`clique` is None while it is not known: then the label stays as it is. `is_ending` tells
        at the end of `run` whether the agent ends too, or another one keeps the label from now."""
        self._api = api
        self._is_ending = is_ending
        self._node = node
        self._clique = clique
        self._changed = asyncio.Event()
        self.last_turn_s = 0.0

    def look_again(self) -> None:
        """The clique may be another one."""
        self._changed.set()

    async def run(self) -> None:
        """Eternal; takes the label off when it is cancelled, unless another agent goes on."""
        backoff = Backoff()
        try:
            while True:
                self.last_turn_s = asyncio.get_running_loop().time()
                self._changed.clear()
                pause_s = INTERVAL_S
                try:
                    if (clique := self._clique()) is not None:
                        await self._put(clique or None)
                    backoff.succeeded()
                except ApiError as error:
                    pause_s = backoff.failed()
                    log.warning("clique label not written", cause=str(error), retry_in_s=pause_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
        finally:
            if self._is_ending():
                await self._take_off()

    async def _put(self, clique: str | None) -> None:
        node = await self._api.get(NODES, self._node)
        if (node["metadata"].get("labels") or {}).get(LABEL_NODE_CLIQUE) == clique:
            return
        patch = {"metadata": {"labels": {LABEL_NODE_CLIQUE: clique}}}
        await self._api.patch(NODES, self._node, patch)
        log.info("clique label written", clique=clique)

    async def _take_off(self) -> None:
        try:
            async with asyncio.timeout(_END_S):
                await self._put(None)
        except (ApiError, TimeoutError) as error:
            log.warning("clique label not taken off", cause=str(error))
