"""Points in a run: before each system call that may change a file, and at each step's boundaries.

The interpreter's profiling hook sees them all, in every thread, without a change to the code.
"""

from __future__ import annotations

import io
import itertools
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from nvdra_nodeagent.durable import is_temporary
from nvdra_nodeagent.steps.registry import StepHandlers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

_FILE_CALLS: Final = frozenset(
    ("open", "write", "fchmod", "fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir")
)
_HANDLERS: Final = StepHandlers.__module__
_STEP_CALLS: Final = ("apply", "undo")


class Killed(BaseException):
    """Raised at a point: nothing in the agent catches it, as nothing catches SIGKILL."""


@contextmanager
def file_points(reached: Callable[[int], None]) -> Iterator[None]:
    """Call `reached` with the number of each point, from 1 on, in this thread and in new ones."""
    numbers = itertools.count(1)

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            at_point = argument.__name__ in _FILE_CALLS and _is_of_files(argument)
        else:
            code = frame.f_code
            at_point = code.co_name in _STEP_CALLS and frame.f_globals["__name__"] == _HANDLERS
        if at_point:
            reached(next(numbers))

    before = sys.getprofile(), threading.getprofile()
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])


def _is_of_files(call: Any) -> bool:
    """Others have methods of these names too; log lines come from several threads in any order."""
    of_file = isinstance(getattr(call, "__self__", None), io.RawIOBase | io.BufferedIOBase)
    return of_file or call.__module__ in ("posix", "io", "_io")


def tree(root: Path, *, temporaries: bool = False) -> dict[str, str]:
    """All files and what is in them. The random parts of temporary names are left out."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if is_temporary(path.name):
            name = name.rsplit(".", 2)[0] if temporaries else ""
        if name and path.is_file():
            found[name] = path.read_text(encoding="utf-8", errors="replace")
    return found
