"""The real node agent as a process, on a simulated machine with 8 H100s, and what is seen of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvdra_kube.resources import RESOURCE_SLICES
from nvdra_kube.session import KubeSession
from nvdra_sim.cluster.node import MachineChoice, NodeDirectories

from .api_server import DRIVER, NODE
from .figures import memory_mib
from .production import environ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from nvdra_kube.api import KubeApi
    from nvdra_sim.cluster.access import ApiAccess

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """Where an agent runs: interpreter, directories, and the way to the API server."""

    python: Path
    directories: NodeDirectories
    access: ApiAccess

    @property
    def socket(self) -> Path:
        return self.directories.plugins / DRIVER / "dra.sock"

    def command(self, *extra: str) -> list[str]:
        return [
            *(str(self.python), "-m", "nvdra_nodeagent.main"),
            *self.directories.agent_arguments(NODE, MachineChoice(profile="h100")),
            *("--service-account-dir", str(self.access.service_account_dir)),
            *extra,
        ]

    def session(self) -> KubeSession:
        return KubeSession.in_cluster(
            environ=self.access.environ(), service_account_dir=self.access.service_account_dir
        )


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """An agent whose slices stand in the API; `visible_s` after its start they did, and after
    `serving_s` its socket was there too."""

    process: asyncio.subprocess.Process
    visible_s: float
    serving_s: float

    def memory_mib(self) -> dict[str, float]:
        """As `figures` has it."""
        return memory_mib(self.process.pid)

    def files(self) -> int:
        """Open ones, sockets and the like too."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))


@asynccontextmanager
async def running_agent(node: Node, *extra: str) -> AsyncIterator[RunningAgent]:
    """Start the agent and wait for its slices; SIGTERM at the end."""
    async with node.session() as api:
        revision = (await api.list(RESOURCE_SLICES))["metadata"]["resourceVersion"]
        started = time.perf_counter()
        process = await _start(node, extra)
        try:
            await _first(_slices_visible(api, revision), process.wait())
            if process.returncode is not None:
                raise RuntimeError(f"the agent ended:\n{node.directories.agent_log.read_text()}")
            visible_s = time.perf_counter() - started
            await _first(_serving(node), process.wait())
            yield RunningAgent(process, visible_s, time.perf_counter() - started)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def delete_slices(api: KubeApi) -> None:
    """As a node that has never had a driver."""
    for body in (await api.list(RESOURCE_SLICES))["items"]:
        await api.delete(RESOURCE_SLICES, body["metadata"]["name"])


async def _start(node: Node, extra: Sequence[str]) -> asyncio.subprocess.Process:
    with node.directories.agent_log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *node.command(*extra),
            env=environ(**node.access.environ()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


async def _first(*awaited: Coroutine[Any, Any, object]) -> None:
    """Return when one of them has ended; the others are cancelled."""
    tasks = [asyncio.create_task(each) for each in awaited]
    try:
        async with asyncio.timeout(PATIENCE_S):
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serving(node: Node) -> None:
    """Slices that were left standing say nothing of the agent that has just been started."""
    while not node.socket.exists():
        await asyncio.sleep(0.005)


async def _slices_visible(api: KubeApi, revision: str) -> None:
    if await _devices(api):
        return  # still there from the last run
    async for event in api.watch(RESOURCE_SLICES, resource_version=revision):
        if event.type == "ADDED" and event.object["spec"].get("devices"):
            return


async def _devices(api: KubeApi) -> list[Any]:
    items = (await api.list(RESOURCE_SLICES))["items"]
    return [device for item in items for device in item["spec"].get("devices", ())]
