"""Containers that are plain processes of this machine: for programs that no stand-in image has.

Of the CDI edits the environment counts, and the daemon's mounts become settings of where to look.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvdra_sim.cluster.kubelet.container import ContainerSpec, RunningContainer

_BIN = Path(sys.executable).parent


class HostRuntime:
    """`programs` is where the stand-ins of `nvidia-imex` are. Keeps what it was told to start."""

    def __init__(self, *, programs: Path) -> None:
        self._programs = programs
        self.specs: dict[str, ContainerSpec] = {}

    async def start(self, spec: ContainerSpec) -> RunningContainer:
        self.specs[spec.name] = spec
        environ = {**spec.env, **dict(each.split("=", 1) for each in spec.edits.env)}
        environ["PATH"] = f"{self._programs}:{_BIN}:{os.environ['PATH']}"
        hosts = await asyncio.to_thread(_lay_out, spec)
        for mount in spec.edits.mounts:
            if mount.container_path == "/imexd":
                environ |= {"IMEX_DIRECTORY": mount.host_path, "HOSTS_FILE": str(hosts)}
        with spec.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *spec.args,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return _Container(process)


def _lay_out(spec: ContainerSpec) -> Path:
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    hosts = spec.log.parent / "hosts"
    hosts.write_text("127.0.0.1\tlocalhost\n")
    return hosts


class _Container:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def wait(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
