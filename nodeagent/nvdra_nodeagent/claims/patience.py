"""Retrying inside one call of the kubelet, whose own next attempt is a minute or more away."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from nvdra_nodeagent.errors import NodeFault, NotYet, Retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nvdra_nodeagent.claims.model import ClaimRef

log = structlog.get_logger(__name__)

DEFAULT_BUDGET_S: Final = 30.0
"""The kubelet waits 45 s; the last attempt needs time too."""

FAULT_BUDGET_S: Final = 5.0
"""For what somebody has to mend: only an answer puts the cause into the pod's events."""

POLL_S: Final = 0.8
"""For what will happen by itself, should nobody tell."""

_FIRST_PAUSE_S: Final = 0.1
_LAST_PAUSE_S: Final = 2.0

T = TypeVar("T")


class Patience:
    """How long the claims of an agent are tried; `end` cuts all of it short."""

    def __init__(
        self, *, budget_s: float = DEFAULT_BUDGET_S, fault_budget_s: float = FAULT_BUDGET_S
    ) -> None:
        self._budget_s = budget_s
        self._fault_budget_s = min(budget_s, fault_budget_s)
        self._is_over = False
        self._failures: dict[str, Retryable] = {}
        self._news = asyncio.Event()

    def end(self) -> None:
        """From now on attempts that fail are the last ones: the next agent will be called."""
        self._is_over = True
        self.wake()

    def wake(self) -> None:
        """End all pauses now: what was waited for may be there."""
        self._news.set()
        self._news = asyncio.Event()

    def last_failure(self, uid: str) -> Retryable | None:
        """Why the claim is tried again; None when it was not tried before, or is not tried now."""
        return self._failures.get(uid)

    async def persevere(
        self,
        attempt: Callable[[float], Awaitable[T]],
        *,
        claim: ClaimRef,
        on_failure: Callable[[Retryable], None] = lambda error: None,
    ) -> T:
        """Call `attempt(deadline)` until it succeeds, fails for good, or the time is up.

        The deadline is on the loop's clock. `on_failure` is told each failure that is tried again.
        :raises AgentError: the last one.
        """
        try:
            return await self._persevere(attempt, claim=claim, on_failure=on_failure)
        finally:
            self._failures.pop(claim.uid, None)

    async def _persevere(
        self,
        attempt: Callable[[float], Awaitable[T]],
        *,
        claim: ClaimRef,
        on_failure: Callable[[Retryable], None],
    ) -> T:
        loop = asyncio.get_running_loop()
        started = loop.time()
        pause_s, told = _FIRST_PAUSE_S, ""
        while True:
            news = self._news  # of the time before the attempt, which may look at it too early
            try:
                return await attempt(started + self._budget_s)
            except Retryable as error:
                waits = isinstance(error, NotYet)
                wait_s = POLL_S if waits else pause_s * random.uniform(0.75, 1.25)
                late = loop.time() + wait_s >= started + self._limit_s(error)
                if late or self._is_over:
                    raise
                self._failures[claim.uid] = error
                on_failure(error)
                if str(error) != told:
                    tell = log.info if waits else log.warning  # waiting is nobody's fault
                    tell("attempt failed, will retry", claim=claim.uid, error=str(error))
                    told = str(error)
                await _first_of(news, wait_s=wait_s)
                if self._is_over:
                    raise
            pause_s = _FIRST_PAUSE_S if waits else min(2 * pause_s, _LAST_PAUSE_S)

    def _limit_s(self, error: Retryable) -> float:
        return self._fault_budget_s if isinstance(error, NodeFault) else self._budget_s


async def _first_of(news: asyncio.Event, *, wait_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await news.wait()
