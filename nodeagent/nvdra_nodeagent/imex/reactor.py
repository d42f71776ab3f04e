"""The daemon's one loop: descriptors, signals and a clock, without threads."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Reactor:
    """Calls whom it watches for when there is something to read."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._selector = selectors.DefaultSelector()

    def watch(self, source: Any, call: Callable[[], None]) -> None:
        """`source` is a descriptor or has a `fileno()`."""
        self._selector.register(source, selectors.EVENT_READ, call)

    def forget(self, source: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def turn(self, *, timeout_s: float) -> None:
        """Wait until something happens or the time is over, and call whom it concerns."""
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            key.data()

    def close(self) -> None:
        self._selector.close()


class Signals:
    """Signals as bytes in a pipe, so that none is lost and none interrupts anything."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._receiver, sender = os.pipe()
        os.set_blocking(self._receiver, False)
        os.set_blocking(sender, False)
        signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _ignored)

    def fileno(self) -> int:
        return self._receiver

    def take(self) -> set[int]:
        """Those that came since."""
        try:
            return set(os.read(self._receiver, 4096))
        except BlockingIOError:
            return set()


def _ignored(number: int, frame: object) -> None:
    """The byte in the pipe is what counts; without a handler there would be none."""
