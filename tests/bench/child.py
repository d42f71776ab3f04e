"""Programs that run beside a benchmark, in processes of their own.

A program says one line of JSON when it is ready, answers each line of its standard input with
another one, and ends when that input ends: it cannot outlive the benchmark.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

BENCH = Path(__file__).resolve().parent
_READY_S = 60.0
_LONGEST_LINE = 64 * 1024 * 1024  # names thousands of claims


class Child:
    """A started program; `ready` is what it said first."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self._process = process
        self.ready = ready
        self.pid = process.pid

    async def ask(self) -> dict[str, Any]:
        """The program's answer to a line."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(b"\n")
        return await _line_of(self._process)


@asynccontextmanager
async def child(program: str, arguments: Mapping[str, object]) -> AsyncIterator[Child]:
    """Run one of `tests/bench`'s own programs until the context ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(BENCH), program, json.dumps(arguments, default=str)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    try:
        async with asyncio.timeout(_READY_S):
            ready = await _line_of(process)
        yield Child(process, ready)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


async def serve(ready: Mapping[str, object], answer: Callable[[], Mapping[str, object]]) -> None:
    """The program's side: returns when the benchmark is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say(ready)
    while await reader.readline():
        _say(answer())


def _say(document: Mapping[str, object]) -> None:
    print(json.dumps(document, default=str), flush=True)


async def _line_of(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"a program of the benchmark ended with {await process.wait()}")
    document: dict[str, Any] = json.loads(line)
    return document
