"""SIGUSR2 writes all thread and task stacks to a file and carries on."""

from __future__ import annotations

import asyncio
import faulthandler
import io
import signal
import tempfile
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


def dump_on_signal(loop: asyncio.AbstractEventLoop, *, directory: Path | None = None) -> Path:
    """Install the handler; returns the file that a signal will write."""
    target = (directory or Path(tempfile.gettempdir())) / "nvdra-controller-stacks.dump"
    loop.add_signal_handler(signal.SIGUSR2, write_stacks, target)
    return target


def write_stacks(target: Path) -> None:
    """Stacks of all threads, then of all tasks of the running loop, by task name."""
    text = io.StringIO()
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        text.write(f"\nTask {task.get_name()}\n")
        task.print_stack(file=text)
    try:
        with target.open("w") as file:
            faulthandler.dump_traceback(file=file, all_threads=True)
            file.write(text.getvalue())
    except OSError as error:
        log.warning(
            "stacks not written", file=str(target), cause=str(error), stacks=text.getvalue()
        )
        return
    log.info("stacks written", file=str(target))
