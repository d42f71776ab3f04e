"""Waiting for conditions: poll until true, with a deadline that only a real fault reaches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from .errors import Ended, GaveUp, RingError

if TYPE_CHECKING:
    from collections.abc import Callable

Seen = TypeVar("Seen")

DEADLINE_S = 300.0
"""Long enough for a loaded machine that stands still now and then; never a measure of speed."""


def eventually(
    look: Callable[[], Seen | None],
    *,
    until: str,
    deadline_s: float = DEADLINE_S,
    every_s: float = 0.1,
) -> Seen:
    """Return the first true value that ``look`` gives.

    A ``RingError`` raised by ``look`` counts as "not yet" and is told at the end.

    Raises:
        Ended: from ``look``; nothing will change any more.
        GaveUp: the deadline passed; the message has what was seen last.
    """
    started = time.monotonic()
    last = "nothing"
    while (waited_s := time.monotonic() - started) < deadline_s:
        try:
            seen = look()
        except Ended:
            raise
        except RingError as error:
            last = str(error)
        else:
            if seen:
                return seen
            last = repr(seen)
        time.sleep(every_s)
    raise GaveUp(until, waited_s=waited_s, last=last)
