"""Sockets of instances that were killed: nobody answers there, and nobody else removes them.

The kubelet would try to reach such a socket for as long as it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING

import structlog

from nvdra_nodeagent.kubelet.names import is_registration_name, is_service_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = structlog.get_logger(__name__)


async def keep_swept(
    driver: str, *, plugin_dir: Path, registrar_dir: Path, interval_s: float = 600.0
) -> None:
    """Remove dead sockets of `driver` at once and again every `interval_s`; eternal."""

    def is_registration(name: str) -> bool:
        return is_registration_name(name, driver=driver)

    while True:
        await asyncio.to_thread(remove_dead_sockets, registrar_dir, is_ours=is_registration)
        await asyncio.to_thread(remove_dead_sockets, plugin_dir, is_ours=is_service_name)
        await asyncio.sleep(interval_s)


def remove_dead_sockets(directory: Path, *, is_ours: Callable[[str], bool]) -> list[str]:
    """Sockets with such names that refuse connections: published ones only do when nobody
    listens. Returns the names removed; blocks briefly."""
    removed = []
    with contextlib.suppress(OSError):  # the directory comes with the kubelet
        for path in directory.iterdir():
            if is_ours(path.name) and _remove_if_dead(path):
                log.info("dead socket removed", socket=str(path))
                removed.append(path.name)
    return removed


def _remove_if_dead(path: Path) -> bool:
    try:
        before = path.lstat()
        if not stat.S_ISSOCK(before.st_mode) or not _refuses(path):
            return False
        # One that was put there meanwhile is another file.
        if os.path.samestat(before, path.lstat()):
            path.unlink()
            return True
    except OSError as exc:
        log.warning("socket not looked at", socket=str(path), cause=exc.strerror)
    return False


def _refuses(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except BlockingIOError:  # busy, so somebody is there
            return False
    return False
