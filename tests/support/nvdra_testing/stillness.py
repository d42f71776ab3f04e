"""Waiting until nothing happens any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_NAPS: Final = 30


async def unchanged(look: Callable[[], object], *, for_s: float) -> None:
    """Until every look has shown the same for so long.

    In naps: where the machine stalls, one of them passes, and not all the time to wait.
    """
    seen, naps = look(), 0
    while naps < _NAPS:
        await asyncio.sleep(for_s / _NAPS)
        now = look()
        seen, naps = now, naps + 1 if now == seen else 0
