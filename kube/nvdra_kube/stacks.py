"""SIGUSR2 writes all thread and task stacks to a file and carries on."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import io
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger(__name__)


def dump_on_signal(
    loop: asyncio.AbstractEventLoop,
    *,
    directory: Path | None = None,
    state: Callable[[], str] = lambda: "",
) -> Path:
    """Install the handler, in the place of an earlier one; returns the file that it will write.

    `state` says in lines what the program is at.
    """
    target = (directory or Path(tempfile.gettempdir())) / "nvdra-stacks.dump"
    loop.add_signal_handler(signal.SIGUSR2, write_stacks, target, state)
    return target


def write_stacks(target: Path, state: Callable[[], str] = lambda: "") -> None:
    """Stacks of all threads, then of all tasks of the running loop, by task name, then `state`."""
    text = io.StringIO()
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        print(f"\nTask {task.get_name()}", file=text)
        task.print_stack(file=text)
    print(f"\n{_told(state)}", file=text)
    try:
        with _in_place_of(target) as file:
            faulthandler.dump_traceback(file=file, all_threads=True)
            file.write(text.getvalue())
    except OSError as exc:
        log.warning("stacks go to standard error", file=str(target), cause=str(exc))
        sys.stderr.write(text.getvalue())
        return
    log.info("stacks written", file=str(target))


@contextlib.contextmanager
def _in_place_of(target: Path) -> Iterator[IO[str]]:
    """A new file that becomes `target` at the end, for this user's eyes only.

    Everybody may put something of that name into a directory for temporary files. A link or a pipe
    there is replaced, never written through.
    """
    number, made = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
    try:
        with os.fdopen(number, "w") as file:
            yield file
        Path(made).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(made).unlink()
        raise


def _told(state: Callable[[], str]) -> str:
    try:
        return state()
    except Exception as exc:  # the stacks are wanted all the more
        return f"state not told: {exc!r}"
