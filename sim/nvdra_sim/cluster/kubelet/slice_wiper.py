"""Removal of stale ResourceSlices, as the kubelet does it: at its start, and after a driver went.

At start every slice of the node goes, whoever published it; drivers notice and publish again. A
driver that has been away for a while loses its slices, so that nothing is scheduled to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, NotFound
from nvdra_kube.resources import RESOURCE_SLICES

if TYPE_CHECKING:
    from nvdra_kube.api import KubeApi

log = structlog.get_logger(__name__)

WIPE_DELAY_S = 30.0


class SliceWiper:
    """Slices of `node`. `run` belongs to a task of the owner."""

    def __init__(
        self,
        api: KubeApi,
        *,
        node: str,
        delay_s: float = WIPE_DELAY_S,
        retry_first_s: float = 1.0,
        retry_limit_s: float = 300.0,
    ) -> None:
        self._api = api
        self._node = node
        self._delay_s = delay_s
        self._backoff = Backoff(first_s=retry_first_s, limit_s=retry_limit_s)
        self._due: dict[str, float] = {}
        self._woken = asyncio.Event()

    def driver_gone(self, driver: str) -> None:
        """Wipe after the delay, unless it comes back."""
        self._due.setdefault(driver, asyncio.get_running_loop().time() + self._delay_s)
        self._woken.set()

    def driver_back(self, driver: str) -> None:
        self._due.pop(driver, None)

    async def wipe_all(self) -> None:
        """Every slice of the node, repeated until it succeeded."""
        while True:
            try:
                await self._wipe(f"spec.nodeName={self._node}")
            except ApiError as exc:
                await asyncio.sleep(self._failed(exc))
            else:
                self._backoff.succeeded()
                return

    async def run(self) -> None:
        """Wipe what is due until cancelled."""
        while True:
            self._woken.clear()
            now = asyncio.get_running_loop().time()
            for driver in [name for name, due in self._due.items() if due <= now]:
                await self._wipe_driver(driver)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(self._due.values(), default=None)):
                    await self._woken.wait()

    async def _wipe_driver(self, driver: str) -> None:
        try:
            await self._wipe(f"spec.nodeName={self._node},spec.driver={driver}")
        except ApiError as exc:
            if driver in self._due:
                self._due[driver] = asyncio.get_running_loop().time() + self._failed(exc)
        else:
            self._backoff.succeeded()
            self._due.pop(driver, None)
            log.info("slices of an absent driver wiped", driver=driver, node=self._node)

    async def _wipe(self, selector: str) -> None:
        listed = await self._api.list(RESOURCE_SLICES, field_selector=selector)
        for item in listed.get("items") or []:
            with contextlib.suppress(NotFound):
                await self._api.delete(RESOURCE_SLICES, item["metadata"]["name"])

    def _failed(self, exc: ApiError) -> float:
        delay_s = self._backoff.failed()
        log.warning("slices not wiped", node=self._node, cause=exc.message, retry_s=delay_s)
        return delay_s
