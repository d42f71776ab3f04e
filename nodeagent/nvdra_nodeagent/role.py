"""Which of the agents of a node publishes, sweeps and reconciles: one at a time, the newest.

Two agents overlap while a new version is rolled out. The role is a byte lock: the kernel frees it
with its process, however that ends. Whoever is registered with the kubelet asks for it once, by a
second byte lock that the holder looks at; the holder ends its work and goes on as a stand-by, which
takes the role only when it is free. So the newest has it, and nobody asks for it to and fro.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_nodeagent.durable import write_durably
from nvdra_nodeagent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from nvdra_nodeagent.claims.locks import LockFile

log = structlog.get_logger(__name__)

_ROLE: Final = "role"
_HEIR: Final = "role heir"
_STANDBY_POLL_S: Final = 0.05
_HOLDER_POLL_S: Final = 0.25


class Role:
    """`run` belongs to a task of the owner; `held` and `wait_held` are for everybody.

    `identity` names this agent in the logs of both; `registered` is set once the kubelet knows it.
    """

    def __init__(
        self,
        locks: LockFile,
        *,
        state_dir: Path,
        identity: str,
        registered: asyncio.Event,
        on_change: Callable[[bool], None] = lambda held: None,
    ) -> None:
        """`locks` is this agent's own handle of the file that all agents of the driver lock;
        `state_dir` is theirs too."""
        self._locks = locks
        self._names = {_ROLE: state_dir / "role.holder", _HEIR: state_dir / "role.heir"}
        self._identity = identity
        self._registered = registered
        self._on_change = on_change
        self._held = asyncio.Event()
        self._has_asked = False
        self._problems: set[str] = set()

    def __repr__(self) -> str:
        return f"<Role {'held' if self.held else 'not held'} by {self._identity}>"

    @property
    def held(self) -> bool:
        return self._held.is_set()

    async def wait_held(self) -> None:
        await self._held.wait()

    async def run(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Do `work` while the role is held; eternal. The role is free only when `work` has ended,
        by being cancelled, also when this is cancelled."""
        while True:
            await self._take()
            try:
                await self._work_until_asked(work)
            finally:
                self._give_up()

    async def _take(self) -> None:
        is_heir = False
        while not ((is_heir or not self._is_asked()) and self._try(_ROLE)):
            if not is_heir and self._may_ask():
                is_heir = await self._ask()
            await asyncio.sleep(_STANDBY_POLL_S)
        try:
            before = await self._exchange_name(_ROLE)
        except BaseException:
            self._unlock(_ROLE)
            raise
        finally:
            if is_heir:
                self._unlock(_HEIR)
        self._held.set()
        self._on_change(True)
        log.info("taking charge of slices and sweeps", agent=self._identity, before=before)

    def _may_ask(self) -> bool:
        return self._registered.is_set() and not self._has_asked

    async def _ask(self) -> bool:
        # One that is newer still is waiting, or nobody can lock anything: no name is left for that.
        if self._is_asked() or self._problems:
            return False
        # Before the lock: the holder reads the name as soon as it sees that somebody asks.
        await self._exchange_name(_HEIR)
        if not self._try(_HEIR):
            return False
        self._has_asked = True
        log.info("asking for charge of slices and sweeps", agent=self._identity)
        return True

    async def _work_until_asked(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work(), name="work in role")
            while not (  # noqa: ASYNC110 - it is another process that asks
                (is_lost := self._is_lost()) or self._is_asked()
            ):
                await asyncio.sleep(_HOLDER_POLL_S)
            if is_lost:  # the file was removed, and the other agent was quicker with a new one
                log.warning("another agent took slices and sweeps", agent=self._identity)
            else:
                heir = await self._name(_HEIR)
                log.info(
                    "leaving slices and sweeps to a newer agent", agent=self._identity, to=heir
                )
            working.cancel()

    def _give_up(self) -> None:
        # Whoever asked was registered later, and is not to be asked back.
        self._has_asked |= self._registered.is_set()
        self._held.clear()
        self._on_change(False)
        self._unlock(_ROLE)

    def _try(self, key: str) -> bool:
        try:
            taken = self._locks.try_lock(key)
        except AgentError as error:
            self._complain(error)
            return False
        self._problems.clear()
        return taken

    def _is_lost(self) -> bool:
        try:
            return not self._locks.holds(_ROLE)
        except AgentError as error:
            self._complain(error)
            return False

    def _is_asked(self) -> bool:
        try:
            return not self._locks.is_free(_HEIR)
        except AgentError as error:
            self._complain(error)
            return False

    def _unlock(self, key: str) -> None:
        try:
            self._locks.unlock(key)
        except AgentError as error:  # freed with the file, at the latest
            self._complain(error)

    def _complain(self, error: AgentError) -> None:
        """Each cause once, not at every attempt."""
        if str(error) not in self._problems:
            self._problems.add(str(error))
            log.error("role lock unusable", error=str(error))

    async def _exchange_name(self, key: str) -> str:
        """Leave our name for the logs of others; returns the name found, "" for none."""
        found = await self._name(key)
        try:
            await asyncio.to_thread(write_durably, self._names[key], self._identity.encode())
        except AgentError as error:
            log.warning("name not left for other agents", error=str(error))
        return found

    async def _name(self, key: str) -> str:
        try:
            return await asyncio.to_thread(self._names[key].read_text, errors="replace")
        except OSError:
            return ""
