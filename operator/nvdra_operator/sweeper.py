"""Removes what bears the UID of a domain that does not exist: labels on nodes, leftover objects.

Needed where a domain's finalizer was taken off by hand, or a node joined while the domain went.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError
from nvdra_operator.domains.expectations import Expectations
from nvdra_operator.domains.plan import plan_teardown
from nvdra_operator.gate import NotLeading
from nvdra_operator.resources import COMPUTE_DOMAINS

if TYPE_CHECKING:
    from nvdra_kube.api import KubeApi
    from nvdra_operator.domains.executor import Executor
    from nvdra_operator.mirror import Mirror

log = structlog.get_logger(__name__)

_EVERY_S: Final = 600.0
# A domain that goes takes its objects along within moments; that is not ours to do.
_SETTLE_S: Final = 2.0


class Sweeper:
    """`run` belongs to a task."""

    def __init__(
        self, api: KubeApi, mirror: Mirror, executor: Executor, *, settle_s: float = _SETTLE_S
    ) -> None:
        self._api = api
        self._mirror = mirror
        self._executor = executor
        self._settle_s = settle_s
        self._wanted = asyncio.Event()
        self._backoff = Backoff(first_s=1.0, limit_s=60.0)
        self._expectations: dict[str, Expectations] = {}
        self.swept = 0
        mirror.subscribe(on_domain=self._look, on_object=self._look)

    def _look(self, uid: str) -> None:
        if self._mirror.domain(uid) is None:
            self._wanted.set()

    async def run(self) -> None:
        """Sweep at once, when something turns up, and now and then; until cancelled."""
        while True:
            self._wanted.clear()
            pause_s = _EVERY_S
            try:
                await self.sweep()
                self._backoff.succeeded()
            except NotLeading:
                raise
            except Exception as error:
                pause_s = self._failed(error)
            try:
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(self._settle_s)

    async def sweep(self) -> None:
        """Undo each domain that objects name and nobody knows. Raises `ApiError`."""
        strangers = self._mirror.strangers()
        for uid in self._expectations.keys() - strangers:
            del self._expectations[uid]
        if not strangers:
            return
        # The copy of the domains may be behind the copy of their objects.
        listed = await self._api.list(COMPUTE_DOMAINS)
        alive = {body["metadata"]["uid"] for body in listed["items"]}
        for uid in sorted(strangers - alive):
            await self._remove(uid)

    def _failed(self, error: Exception) -> float:
        """Seconds until the next attempt: a node with a leftover label is of no use to anybody."""
        pause_s = self._backoff.failed()
        log.warning(
            "leftovers not swept",
            cause=str(error) or type(error).__name__,
            retry_in_s=round(pause_s, 1),
            exc_info=None if isinstance(error, ApiError) else error,
        )
        return pause_s

    async def _remove(self, uid: str) -> None:
        expectations = self._expectations.setdefault(uid, Expectations())
        if not expectations.settled(self._mirror.look, now_s=asyncio.get_running_loop().time()):
            self._wanted.set()
            return
        plan = plan_teardown(self._mirror.scene(uid), patient=False)
        if plan.stages:
            log.info("removing leftovers", domain=uid, actions=len(plan.actions))
            self.swept += len(plan.actions)
            await self._executor.carry_out(plan, uid=uid, expectations=expectations)
