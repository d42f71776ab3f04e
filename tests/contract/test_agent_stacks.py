"""SIGUSR2: what all threads and tasks are at, in a file; the program carries on."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import threading
from typing import TYPE_CHECKING

from nvdra_kube.stacks import dump_on_signal, write_stacks
from nvdra_testing.agent import until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_a_signal_writes_threads_tasks_and_state(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    target = dump_on_signal(loop, directory=tmp_path, state=lambda: "GPU-a: held by prepare x")
    waiting = asyncio.create_task(asyncio.Event().wait(), name="prepare a/b:c")
    ending = threading.Event()
    thread = threading.Thread(target=ending.wait)
    thread.start()
    try:
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: target.exists() and "held by" in target.read_text())
    finally:
        ending.set()
        thread.join()
        waiting.cancel()
        loop.remove_signal_handler(signal.SIGUSR2)
    text = target.read_text()
    assert "Task prepare a/b:c" in text
    assert text.count("Thread 0x") >= 1
    assert text.rstrip().endswith("GPU-a: held by prepare x")


async def test_a_state_that_cannot_be_told_does_not_keep_the_stacks(tmp_path: Path) -> None:
    def broken() -> str:
        raise RuntimeError("odd")

    write_stacks(tmp_path / "dump", broken)
    text = (tmp_path / "dump").read_text()
    assert "Task " in text
    assert "state not told: RuntimeError('odd')" in text


async def test_what_somebody_put_in_the_place_of_the_file_is_not_written_through(
    tmp_path: Path,
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    target = tmp_path / "dump"
    target.symlink_to(precious)
    write_stacks(target)
    assert precious.read_text() == "as it was"
    assert not target.is_symlink()
    assert "Task " in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


async def test_stacks_that_cannot_be_kept_go_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dump").mkdir()
    write_stacks(tmp_path / "dump")
    assert "Task " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["dump"]
