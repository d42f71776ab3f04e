"""The floor beside an agent: another process that does the least that a driver has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .child import Child, child
from .kubelet import Driver, Timings

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

    from .setting import Setting


async def sizes_of(setting: Setting, agent: Driver) -> dict[str, int]:
    """What the agent writes for a claim; the floor writes as much."""
    claim = agent.take(0)
    await agent.prepare(claim, Timings())
    sizes = {
        "journal_bytes": _file_of(claim["uid"], setting.node.directories.plugins).stat().st_size,
        "cdi_bytes": _file_of(claim["uid"], setting.node.directories.cdi).stat().st_size,
    }
    await agent.unprepare(claim, Timings())
    return sizes


def _file_of(uid: str, directory: Path) -> Path:
    return next(directory.rglob(f"*{uid}*"))


async def a_floor(
    stack: AsyncExitStack, setting: Setting, sizes: dict[str, int]
) -> tuple[Child, Path]:
    """The running floor and its socket; its files lie beside the agent's, for file systems are not
    equally fast everywhere on a disk."""
    root = setting.node.directories.root / "floor"
    root.mkdir()
    access = setting.node.access
    arguments = {
        "root": root,
        "port": access.port,
        "service_account_dir": access.service_account_dir,
        **sizes,
    }
    server = await stack.enter_async_context(child("floor_server", arguments))
    return server, root / "dra.sock"
