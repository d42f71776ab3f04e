"""Time without what the machine stood still: that makes nobody late."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_TICK_S: Final = 0.02
# However long the loop did not turn: so much of it counts.
_MOST_S: Final = 0.1


class LivedTime:
    """Goes with the loop's clock as long as the loop turns. Never faster."""

    def __init__(self) -> None:
        self._lived_s = 0.0
        self._seen_s = asyncio.get_running_loop().time()

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[LivedTime]:
        """One that ticks for as long as the block lasts."""
        lived = cls()
        ticking = asyncio.create_task(lived._tick(), name="lived time")
        try:
            yield lived
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)

    def now_s(self) -> float:
        return self._lived_s + min(_MOST_S, asyncio.get_running_loop().time() - self._seen_s)

    async def _tick(self) -> None:
        while True:
            self._lived_s, self._seen_s = self.now_s(), asyncio.get_running_loop().time()
            await asyncio.sleep(_TICK_S)
