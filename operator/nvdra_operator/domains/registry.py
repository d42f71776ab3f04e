"""The domains that are being kept, by UID; each has one loop at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from nvdra_api.domains import NOT_READY, READY
from nvdra_operator.domains.domain import TEARDOWN_PATIENCE_S, Domain
from nvdra_operator.domains.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import KubeApi
    from nvdra_kube.events import EventRecorder
    from nvdra_operator.mirror import Mirror
    from nvdra_operator.settings import DriverSettings

log = structlog.get_logger(__name__)


class Domains:
    """Hands changes to the domains that they concern."""

    def __init__(
        self,
        *,
        api: KubeApi,
        mirror: Mirror,
        recorder: EventRecorder,
        settings: DriverSettings,
        formed: Callable[[float], None] = lambda _: None,
        patience_s: float = TEARDOWN_PATIENCE_S,
    ) -> None:
        self.executor = Executor(api)
        self._api = api
        self._mirror = mirror
        self._recorder = recorder
        self._settings = settings
        self._formed = formed
        self._patience_s = patience_s
        self._finalizer_grace_s = 0.0
        self._domains: dict[str, Domain] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._neglected_since_s: dict[str, float] = {}
        mirror.subscribe(on_domain=self._appeared, on_object=self.wake)

    @property
    def depth(self) -> int:
        """How many domains have something to be looked at."""
        return sum(domain.is_woken for domain in self._domains.values())

    @property
    def kept(self) -> frozenset[str]:
        """UIDs of the domains that somebody keeps now."""
        return frozenset(filter(self._is_kept, self._turns))

    def _is_kept(self, uid: str) -> bool:
        lock = self._turns.get(uid)
        return lock is not None and lock.locked()

    def neglected(self, *, for_s: float) -> str:
        """Name of a domain that nobody has kept for so long; empty when there is none."""
        now_s = asyncio.get_running_loop().time()
        for uid, since_s in self._neglected_since_s.items():
            if now_s - since_s > for_s and (domain := self._mirror.domain(uid)):
                return f"{domain['metadata']['namespace']}/{domain['metadata']['name']}"
        return ""

    def _appeared(self, uid: str) -> None:
        if self._mirror.domain(uid) is None:
            self._neglected_since_s.pop(uid, None)
        elif not self._is_kept(uid):
            now_s = asyncio.get_running_loop().time()
            self._neglected_since_s.setdefault(uid, now_s)
        self.wake(uid)

    def await_finalizers(self, *, for_s: float) -> None:
        """Somebody else puts finalizers on: only do it where they are missing after so long."""
        self._finalizer_grace_s = for_s

    def wake(self, uid: str) -> None:
        if domain := self._domains.get(uid):
            domain.wake()

    def counts(self) -> dict[str, int]:
        """Domains by `status.status`; one without a status is not ready."""
        states = (
            (body.get("status") or {}).get("status") or NOT_READY
            for body in self._mirror.domains().values()
        )
        return {READY: 0, NOT_READY: 0, **Counter(states)}

    def node_counts(self) -> dict[str, int]:
        """Nodes of all domains by their status."""
        states = (
            node.get("status") or NOT_READY
            for body in self._mirror.domains().values()
            for node in (body.get("status") or {}).get("nodes") or ()
        )
        return {READY: 0, NOT_READY: 0, **Counter(states)}

    async def keep(self, uid: str, *, tears_down: bool = True) -> None:
        """Keep a domain until cancelled, or until it is torn down but for its finalizer; without
        `tears_down` until somebody deletes it.

        Waits for another call for the same domain to end. Raises `NotLeading`.
        """
        async with self._turns.setdefault(uid, asyncio.Lock()):
            if uid not in self._domains:
                self._domains[uid] = self._made(uid)
            self._neglected_since_s.pop(uid, None)
            try:
                await self._domains[uid].run(tears_down=tears_down)
            finally:
                if self._mirror.domain(uid) is not None:
                    self._neglected_since_s[uid] = asyncio.get_running_loop().time()
                else:
                    self._domains.pop(uid, None)

    async def release(self, uid: str) -> None:
        """Take the finalizer off a domain that is torn down. Raises `ApiError`."""
        if domain := self._domains.get(uid):
            await domain.release()

    def forget(self, uid: str) -> None:
        """The domain does not exist any more."""
        self._domains.pop(uid, None)
        lock = self._turns.get(uid)
        if lock is not None and not lock.locked():
            del self._turns[uid]

    def _made(self, uid: str) -> Domain:
        return Domain(
            uid,
            api=self._api,
            mirror=self._mirror,
            executor=self.executor,
            recorder=self._recorder,
            settings=self._settings,
            formed=self._formed,
            patience_s=self._patience_s,
            finalizer_grace_s=self._finalizer_grace_s,
        )
