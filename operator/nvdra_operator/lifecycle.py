"""Who follows ComputeDomains as they come and go, and lets each be kept by a task of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from nvdra_kube.errors import ApiError
from nvdra_operator.gate import NotLeading

if TYPE_CHECKING:
    from nvdra_operator.domains.registry import Domains
    from nvdra_operator.mirror import Mirror

log = structlog.get_logger(__name__)

_RETRY_S: Final = 1.0


class Lifecycle(Protocol):
    """Runs `Domains.keep` for each domain, and takes the finalizer off those that are torn down."""

    async def run(self) -> None:
        """Until cancelled; everything that it started has ended when it returns."""
        ...


class MirrorLifecycle:
    """Follows the mirror's own copy of the domains. For simulations and tests."""

    def __init__(self, mirror: Mirror, domains: Domains) -> None:
        self._mirror = mirror
        self._domains = domains
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._uids: set[str] = set()
        self._departures: dict[str, asyncio.Event] = {}
        mirror.subscribe(on_domain=self._note, on_object=lambda _: None)

    def _note(self, uid: str) -> None:
        self._uids.add(uid)
        self._changed.set()
        if uid in self._departures and self._mirror.domain(uid) is None:
            self._departures[uid].set()

    async def run(self) -> None:
        self._uids |= self._mirror.domains().keys()
        self._changed.set()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._changed.wait()
                self._changed.clear()
                while self._uids:
                    self._start(self._uids.pop(), group)

    def _start(self, uid: str, group: asyncio.TaskGroup) -> None:
        if uid not in self._tasks and self._mirror.domain(uid) is not None:
            self._tasks[uid] = group.create_task(self._follow(uid), name=f"domain {uid}")

    async def _follow(self, uid: str) -> None:
        while self._mirror.domain(uid) is not None:
            await self._domains.keep(uid)
            try:
                await self._domains.release(uid)
            except NotLeading:
                raise
            except ApiError as error:
                log.info("finalizer not taken off", domain=uid, cause=str(error))
            await self._gone(uid)
        del self._tasks[uid]

    async def _gone(self, uid: str) -> None:
        """Until the copy shows that the domain went, or it is time to try again."""
        departed = self._departures.setdefault(uid, asyncio.Event())
        if self._mirror.domain(uid) is None:
            departed.set()
        try:
            async with asyncio.timeout(_RETRY_S):
                await departed.wait()
        except TimeoutError:
            pass
        del self._departures[uid]
