"""A program of ours as a process: started, watched, restarted, and gone with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from nvdra_sim.cluster.parent_death import die_with_this_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = structlog.get_logger(__name__)

_STOP_S = 10.0
_RESTART_PAUSE_S = 0.5
_HOPELESS_FAILURES = 3
_LONG_S = 30.0


@dataclass(slots=True)
class AgentProcess:
    """Keeps `python -m MODULE ARGUMENTS` running, as a kubelet would; its log goes to a file.

    `run()` is the owner's task: cancelling it stops the process, with SIGTERM first.
    """

    module: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    log_file: Path
    wrapper: Sequence[str] = ()
    """A program that becomes this one, with its arguments."""
    starts: int = field(default=0, init=False)
    hopeless: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set when it ended by itself soon after its start, a few times in a row: whatever is wrong
    will stay."""
    _failures: int = field(default=0, init=False)
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        """Process id while one is running."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    def command(self) -> list[str]:
        """What runs, for people who want to run it by hand."""
        return [*self.wrapper, sys.executable, "-m", self.module, *self.arguments]

    async def run(self) -> None:
        """Start, wait, start again; for ever."""
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            code = await self._run_once()
            log.warning("program ended", module=self.module, code=code, log=str(self.log_file))
            lived_long = loop.time() - started_s >= _LONG_S
            was_killed = code == -signal.SIGKILL
            self._failures = 0 if lived_long or was_killed else self._failures + 1
            if self._failures >= _HOPELESS_FAILURES:
                self.hopeless.set()
            await asyncio.sleep(_RESTART_PAUSE_S)

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory kill would; `run()` starts it again."""
        if self._process and self._process.returncode is None:
            self._process.kill()

    def last_lines(self, count: int = 5) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-count:])
        return ""

    async def _run_once(self) -> int:
        with self.log_file.open("ab") as output:
            self._process = process = await asyncio.create_subprocess_exec(
                *self.command(),
                env={**self.environ},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_this_process(),
            )
        self.starts += 1
        try:
            return await process.wait()
        finally:
            await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
