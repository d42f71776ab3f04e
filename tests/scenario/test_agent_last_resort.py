"""A program that is told to stop ends, also when a thread of it hangs for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import sys, threading
from nvdra_nodeagent.main import Driver, run_program
from nvdra_nodeagent.program.options import parse_options

class Agent:
    stop_limit_s = float(sys.argv[2])

    def describe(self):
        return ""

    async def run(self, stop):
        print("running", flush=True)
        await stop.wait()
        if sys.argv[3] == "hangs":
            threading.Event().wait()

argv = ["--node-name=n1", f"--kubeconfig={sys.argv[1]}"]
options = parse_options(argv, environ={}, version="test")
run_program(options, Driver("gpu.nvidia.com", "test", ("gpu",)), lambda node: Agent())
"""


def a_kubeconfig(path: Path) -> Path:
    parts = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "current-context": "x", **parts}))
    return path


async def stopped(directory: Path, *, limit_s: float, end: str) -> tuple[int | None, str]:
    """Exit status and standard error of an agent that got SIGTERM."""
    pipe = asyncio.subprocess.PIPE
    config = a_kubeconfig(directory / "config")
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, config, str(limit_s), end),
        stdout=pipe,
        stderr=pipe,
        env={**os.environ, "LOG_VERBOSITY": "4"},
    )
    assert agent.stdout
    assert await agent.stdout.readline() == b"running\n"
    agent.send_signal(signal.SIGTERM)
    _, errors = await agent.communicate()
    return agent.returncode, errors.decode()


async def test_an_agent_that_hangs_at_the_end_says_where_and_ends(tmp_path: Path) -> None:
    status, said = await stopped(tmp_path, limit_s=0.5, end="hangs")
    assert status == 1
    assert "Timeout" in said
    assert "in run" in said


async def test_an_agent_that_ends_in_order_is_not_waited_for(tmp_path: Path) -> None:
    status, said = await stopped(tmp_path, limit_s=3600.0, end="in order")
    assert status == 0
    assert "Timeout" not in said
