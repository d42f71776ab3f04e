"""Ctrl-C, SIGTERM and a closed terminal: the run is cancelled once, and then left to clean up."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Takes the signals while its context is open; the first one cancels the run.

    More of them change nothing: an impatient second Ctrl-C must not leave half of the cluster
    behind. SIGQUIT (Ctrl-backslash) still ends everything but the files.
    """

    def __init__(self) -> None:
        self._number = 0
        self._task: asyncio.Task[object] | None = None
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """The exit status that tells a shell which signal came; 0 when none did."""
        return 128 + self._number if self._number else 0

    def __enter__(self) -> Self:
        for number in SIGNALS:
            # Ignored for us already: `nohup`, or a job in the background of a script.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def cancels_this_task(self) -> None:
        """From now on a signal cancels the current task, also one that came before."""
        self._task = asyncio.current_task()
        if self._number:
            self._interrupt()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._number:
            return
        self._number = number
        self._interrupt()

    def _interrupt(self) -> None:
        # Not from within the signal handler: it may run between any two steps of the loop. Once
        # the task has ended, its loop may be closed, and nothing is left but to clean up.
        if self._task is not None and not self._task.done():
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)
