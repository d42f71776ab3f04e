"""Programs that the embedded cluster keeps running."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from nvdra_sim.cluster.agent_process import AgentProcess
from nvdra_testing.process_node import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def kept(tmp_path: Path, module: str, *arguments: str) -> AsyncIterator[AgentProcess]:
    process = AgentProcess(
        module=module, arguments=arguments, environ=os.environ, log_file=tmp_path / "log"
    )
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_program_that_ends_again_and_again_is_hopeless(tmp_path: Path) -> None:
    async with kept(tmp_path, "this") as process:
        await until(process.hopeless.is_set)
    assert process.starts == 3
    assert "Beautiful is better than ugly." in process.last_lines(100)


async def test_a_program_that_is_killed_is_started_again_and_not_hopeless(tmp_path: Path) -> None:
    async with kept(tmp_path, "http.server", "--bind", "127.0.0.1", "0") as process:
        for starts in (1, 2, 3):
            await until(partial(_runs, process, starts))
            process.kill()
        await until(lambda: process.starts == 4)
        assert not process.hopeless.is_set()


def _runs(process: AgentProcess, starts: int) -> bool:
    return process.starts == starts and process.pid is not None
