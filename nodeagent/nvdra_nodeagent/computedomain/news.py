"""Readiness files that change, told by the kernel: claims that wait are tried at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from nvdra_nodeagent.computedomain.directories import READY
from nvdra_nodeagent.hardware.file_events import FileAnnouncer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

log = structlog.get_logger(__name__)


class ReadinessNews:
    """`run` belongs to a task of its owner. Where the kernel does not tell, polling goes on."""

    def __init__(
        self, root: Path, *, domains: Callable[[], Iterable[str]], wake: Callable[[], None]
    ) -> None:
        """`domains` are those whose daemon is here; `wake` is called in the loop."""
        self._interests: dict[str, tuple[str, ...]] = {}
        self._announcer = FileAnnouncer(root, self._interests)
        self._domains = domains
        self._wake = wake
        self._changed = asyncio.Event()

    def look_again(self) -> None:
        """Claims have come or gone."""
        self._changed.set()

    async def run(self) -> None:
        """Eternal."""
        descriptor = self._announcer.open()
        if descriptor is None:
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, self._read)
        try:
            while True:
                self._changed.clear()
                self._interests.clear()
                self._interests.update({f"/{domain}": (READY,) for domain in self._domains()})
                await asyncio.to_thread(self._announcer.arm)
                self._wake()  # something may have been written before
                await self._changed.wait()
        finally:
            loop.remove_reader(descriptor)
            self._announcer.close()

    def _read(self) -> None:
        if self._announcer.news():
            self._wake()
