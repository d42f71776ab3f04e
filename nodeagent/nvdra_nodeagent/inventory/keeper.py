"""The inventory over time: taken at start, at intervals, and when something hints at a change."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from nvdra_nodeagent.inventory.model import Defect, Inventory
from nvdra_nodeagent.inventory.surveyor import Surveyor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nvdra_nodeagent.hardware.ports import Announcer, Machine

log = structlog.get_logger(__name__)

DEFAULT_INTERVAL_S: Final = 30.0

_FIRST_RETRY_S: Final = 1.0
_JITTER: Final = 0.2
# Hints come in bursts, and a storm of them must not keep the driver busy.
_BURST_S: Final = 0.05
_SPACING_S: Final = 0.5
# What a hint announces may take a moment to be true.
_SECOND_LOOK_S: Final = 2.0
_PATIENCE_S: Final = 10.0
_REMINDER_S: Final = 300.0

T = TypeVar("T")


class InventoryKeeper:
    """Holds the newest snapshot and tells `on_change` when it differs from the one before.

    A node whose driver is missing has an empty inventory with one defect, until it answers. What
    cannot be read says nothing about the hardware: it stays as last seen. A call that hangs holds
    up nobody but the next look: what was known is still `current`.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        on_change: Callable[[Inventory], None],
        interval_s: float = DEFAULT_INTERVAL_S,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """`interval_s` is the longest time between two looks, give or take a fifth; `patience_s` is
        how long a look may take before it is said that the driver does not answer."""
        self._machine = machine
        self._surveyor = Surveyor(machine)
        self._on_change = on_change
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._current: Inventory | None = None
        self._look: asyncio.Future[Inventory] | None = None
        self._looked_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hinted = asyncio.Event()

    @property
    def current(self) -> Inventory:
        """The newest snapshot; empty before the first one."""
        return self._current or Inventory()

    @property
    def is_known(self) -> bool:
        """Whether there was a snapshot."""
        return self._current is not None

    @property
    def age_s(self) -> float:
        """Since the last look ended, or since the start while none has: it goes on growing while a
        call to the driver hangs."""
        return self._loop.time() - self._looked_s if self._loop else 0.0

    def suspect(self, reason: str) -> None:
        """Have a look soon, because of `reason`. May be called from any thread."""
        loop = self._loop
        if loop is None:  # the first look is still to come
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody looks any more
            loop.call_soon_threadsafe(self._hint, reason)

    async def run(self) -> None:
        """Look for ever. After a look with defects the next follows at once, then after pauses that
        double up to the interval."""
        self._begin()
        with self._listening():
            failures = 0
            while True:
                inventory = await self.refresh()
                failures = failures + 1 if inventory.defects else 0
                if await self._hinted_within(self._pause_s(failures)):
                    await self.refresh()
                    failures = 0 if await self._hinted_within(_SECOND_LOOK_S) else failures

    async def refresh(self) -> Inventory:
        """Look now, or wait for the look that is under way. Never raises for hardware: what failed
        is a defect."""
        self._begin()
        if self._look is None or self._look.done():
            self._look = _in_daemon_thread(self._surveyor.look)
        look = self._look
        await self._patiently(look)
        inventory = await asyncio.shield(look)
        self._looked_s = asyncio.get_running_loop().time()
        self._take(inventory)
        return inventory

    def _begin(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._looked_s = self._loop.time()

    async def _patiently(self, look: asyncio.Future[Inventory]) -> None:
        """Wait for the look; say so when it takes too long, and now and then again."""
        limit_s = self._patience_s
        while not (await asyncio.wait([look], timeout=limit_s))[0]:
            age_s = round(self.age_s)
            log.error("the driver does not answer", since_s=age_s, hint="check dmesg for NVRM")
            if self._current is not None and limit_s != _REMINDER_S:
                stuck = f"a call to the driver has not returned for {self._patience_s:.0f} s"
                self._take(replace(self._current, defects=(Defect("node", "", stuck),)))
            limit_s = _REMINDER_S

    def _take(self, inventory: Inventory) -> None:
        if inventory != self._current:
            self._note_new_defects(inventory)
            self._current = inventory
            self._on_change(inventory)

    def _pause_s(self, failures: int) -> float:
        """The first failure is repeated at once: most are over by then."""
        if not failures:
            return self._interval_s * random.uniform(1 - _JITTER, 1 + _JITTER)
        if failures == 1:
            return 0.0
        pause_s = min(_FIRST_RETRY_S * 2.0 ** min(failures - 2, 30), self._interval_s)
        return pause_s * random.uniform(1 - _JITTER, 1)

    async def _hinted_within(self, pause_s: float) -> bool:
        """Rest; True when a hint ended it."""
        try:
            async with asyncio.timeout(pause_s):
                await self._hinted.wait()
        except TimeoutError:
            return False
        soonest_s = self._looked_s + _SPACING_S - asyncio.get_running_loop().time()
        await asyncio.sleep(max(_BURST_S, soonest_s))
        self._hinted.clear()
        return True

    def _hint(self, reason: str) -> None:
        if not self._hinted.is_set():
            log.info("the hardware may have changed", reason=reason)
        self._hinted.set()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            for announcer in self._machine.announcers:
                descriptor = announcer.open()
                if descriptor is None:
                    continue
                stack.callback(announcer.close)
                loop.add_reader(descriptor, self._hear, announcer, descriptor)
                stack.callback(loop.remove_reader, descriptor)
            yield

    def _hear(self, announcer: Announcer, descriptor: int) -> None:
        for reason in announcer.news():
            self._hint(reason)

    def _note_new_defects(self, inventory: Inventory) -> None:
        """Each cause once, not at every attempt."""
        for defect in sorted(set(inventory.defects) - set(self.current.defects), key=str):
            log.warning(
                "cannot read the hardware",
                device=defect.device,
                attribute=defect.attribute or "everything",
                cause=defect.cause,
            )


def _in_daemon_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """A thread of its own, which nobody waits for at exit: it may be stuck in the driver."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            outcome: tuple[T | None, Exception | None] = (work(), None)
        except Exception as error:
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="inventory", daemon=True).start()
    return future
