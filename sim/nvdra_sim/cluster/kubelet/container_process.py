"""The process that stands for a container, and what is left of the container when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class ContainerProcess:
    """A `RunningContainer` until `process` ends; then `bundle` is removed."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        bundle: Path,
        *,
        kill_signal: int = signal.SIGKILL,
    ) -> None:
        self._process = process
        self._bundle = bundle
        self._kill_signal = kill_signal
        self._ended = asyncio.create_task(self._end(), name=f"container {bundle.name}")

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(self._kill_signal)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _end(self) -> int:
        code = await self._process.wait()
        await asyncio.to_thread(remove_bundle, self._bundle)
        return code if code >= 0 else 128 - code


def remove_bundle(bundle: Path) -> None:
    shutil.rmtree(bundle, ignore_errors=True)
