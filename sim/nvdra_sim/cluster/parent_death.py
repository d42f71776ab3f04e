"""Children that do not outlive the simulator, whatever ends it."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def die_with_this_process() -> Callable[[], None]:
    """For `preexec_fn`: the child gets SIGKILL when the thread that started it ends."""
    return functools.partial(_die_with, os.getpid())


def _die_with(parent: int) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
