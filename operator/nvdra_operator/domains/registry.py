"""The domains that are being kept, by UID; each has one loop at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from nvdra_api.domains import NOT_READY, READY
from nvdra_operator.domains.domain import TEARDOWN_PATIENCE_S, Domain
from nvdra_operator.domains.executor import Executor
from nvdra_operator.domains.scene import has_finalizer, is_dying

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import KubeApi
    from nvdra_kube.events import EventRecorder
    from nvdra_operator.mirror import Mirror
    from nvdra_operator.settings import DriverSettings

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Place:
    """What is known of one UID, for as long as the domain is there or somebody keeps it."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    keepers: int = 0
    """Who keeps it, and who waits for the turn."""
    domain: Domain | None = None
    neglected_since_s: float | None = None


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
        self._places: dict[str, _Place] = {}
        mirror.subscribe(on_domain=self._appeared, on_object=self.wake)

    @property
    def depth(self) -> int:
        """How many domains have something to be looked at."""
        return sum(one.domain is not None and one.domain.is_woken for one in self._places.values())

    @property
    def kept(self) -> frozenset[str]:
        """UIDs of the domains that somebody keeps now."""
        return frozenset(uid for uid, place in self._places.items() if place.turn.locked())

    def knows(self, uid: str) -> bool:
        """Whether the domain is there, or still kept."""
        return uid in self._places

    def neglected(self, *, for_s: float) -> str:
        """Name of a domain that nobody has kept for so long; empty when there is none."""
        before_s = asyncio.get_running_loop().time() - for_s
        for uid, place in self._places.items():
            since_s, domain = place.neglected_since_s, self._mirror.domain(uid)
            if since_s is None or since_s >= before_s or domain is None:
                continue
            # One that is torn down, and that somebody else's finalizer holds, needs no keeping.
            if has_finalizer(domain) or not is_dying(domain):
                return f"{domain['metadata']['namespace']}/{domain['metadata']['name']}"
        return ""

    def _appeared(self, uid: str) -> None:
        """Or changed, or went."""
        place = self._places.setdefault(uid, _Place())
        if not place.turn.locked() and place.neglected_since_s is None:
            place.neglected_since_s = asyncio.get_running_loop().time()
        self.wake(uid)
        self._tidy(uid)

    def await_finalizers(self, *, for_s: float) -> None:
        """Somebody else puts finalizers on: only do it where they are missing after so long."""
        self._finalizer_grace_s = for_s

    def wake(self, uid: str) -> None:
        if (place := self._places.get(uid)) and place.domain:
            place.domain.wake()

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
        place = self._places.setdefault(uid, _Place())
        place.keepers += 1
        try:
            async with place.turn:
                place.neglected_since_s = None
                place.domain = place.domain or self._made(uid)
                try:
                    await place.domain.run(tears_down=tears_down)
                finally:
                    place.neglected_since_s = asyncio.get_running_loop().time()
        finally:
            place.keepers -= 1
            self._tidy(uid)

    async def release(self, uid: str) -> None:
        """Take the finalizer off a domain that is torn down. Raises `ApiError`."""
        if (place := self._places.get(uid)) and place.domain:
            await place.domain.release()

    def _tidy(self, uid: str) -> None:
        """Forget a domain that does not exist, and that nobody keeps."""
        place = self._places.get(uid)
        if place and not place.keepers and self._mirror.domain(uid) is None:
            del self._places[uid]

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
