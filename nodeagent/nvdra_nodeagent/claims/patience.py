"""Retrying inside one call of the kubelet, whose own next attempt is a minute or more away."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from nvdra_nodeagent.errors import Retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nvdra_nodeagent.claims.model import ClaimRef

log = structlog.get_logger(__name__)

DEFAULT_BUDGET_S: Final = 30.0
"""The kubelet waits 45 s; the last attempt needs time too."""

_FIRST_PAUSE_S: Final = 0.1
_LAST_PAUSE_S: Final = 2.0

T = TypeVar("T")


async def persevere(
    attempt: Callable[[float], Awaitable[T]], *, claim: ClaimRef, budget_s: float
) -> T:
    """Call `attempt(deadline)` until it succeeds, fails for good, or the time is up.

    The deadline is on the loop's clock. :raises AgentError: the last one.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + budget_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await attempt(deadline)
        except Retryable as error:
            wait_s = pause_s * random.uniform(0.75, 1.25)
            if loop.time() + wait_s >= deadline:
                raise
            log.warning("attempt failed, will retry", claim=claim.uid, error=str(error))
        await asyncio.sleep(wait_s)
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)
