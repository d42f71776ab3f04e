"""What daemons say and other agents write down, told by the kernel: waiting claims try at once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_nodeagent.computedomain.directories import HEALTH, READY
from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.hardware.file_events import FileAnnouncer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

log = structlog.get_logger(__name__)

TURN_S: Final = 30.0
"""For what the kernel does not tell."""

_RECORDS: Final = {"/claims": tuple("0123456789abcdef")}
_CHANGED: Final = " changed"
_IS_READY: Final = f"{READY}{_CHANGED}"


class DaemonNews:
    """`run` belongs to a task of its owner. Where the kernel does not tell, it looks at intervals.

    Both agents of a rolling update do this: a daemon's claim may be prepared by one, and the claim
    that waits for the daemon by the other.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        domains: Callable[[], Iterable[str]],
        look: Callable[[], Awaitable[None]],
        wake: Callable[[], None],
    ) -> None:
        """`domains` are those whose daemon is here. `look` is called whenever there may be
        something to read anew, and may raise `AgentError`; `wake` when a daemon may be ready."""
        self._interests: dict[str, tuple[str, ...]] = {}
        self._announcer = FileAnnouncer(state_dir, self._interests)
        self._domains = domains
        self._look = look
        self._wake = wake
        self._changed = asyncio.Event()
        self._wakes = True
        self.last_turn_s = 0.0

    def look_again(self) -> None:
        """Claims have come or gone."""
        self._wakes = True
        self._changed.set()

    async def run(self) -> None:
        """Eternal."""
        loop, descriptor = asyncio.get_running_loop(), self._announcer.open()
        if descriptor is not None:
            loop.add_reader(descriptor, self._read)
        try:
            while True:
                self.last_turn_s = loop.time()
                self._changed.clear()
                await self._turn()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_S):
                        await self._changed.wait()
        finally:
            if descriptor is not None:
                loop.remove_reader(descriptor)
            self._announcer.close()

    async def _turn(self) -> None:
        try:
            await self._look()
        except AgentError as error:
            log.warning("claim records not read anew", error=str(error))
        self._interests.clear()
        self._interests.update(_RECORDS)
        self._interests.update({f"/domains/{each}": (READY, HEALTH) for each in self._domains()})
        await asyncio.to_thread(self._announcer.arm)
        if self._wakes:
            self._wakes = False
            self._wake()  # something may have been written before

    def _read(self) -> None:
        news = self._announcer.news()
        if any(each == _IS_READY or not each.endswith(_CHANGED) for each in news):
            self._wake()
        if news:
            self._changed.set()
