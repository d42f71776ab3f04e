"""Waiting longer after each failure, with jitter so that many nodes do not march in step."""

from __future__ import annotations

import random
from typing import Final

_MAX_DOUBLINGS: Final = 30


class Backoff:
    """Delays that double from `first_s` to `limit_s`; each is drawn from its upper half."""

    def __init__(self, *, first_s: float = 0.1, limit_s: float = 30.0) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failures since the last success."""
        return self._failures

    def failed(self, *, at_least_s: float = 0.0) -> float:
        """Count a failure and say how long to wait in seconds, not less than `at_least_s`."""
        bound = self._first_s * (1 << min(self._failures, _MAX_DOUBLINGS))
        self._failures += 1
        delay = min(bound, self._limit_s) * random.uniform(0.5, 1.0)
        return max(delay, at_least_s)

    def succeeded(self) -> None:
        """The next failure counts as the first one."""
        self._failures = 0
