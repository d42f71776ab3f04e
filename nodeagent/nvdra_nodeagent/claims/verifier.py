"""After the driver was loaded anew or its files changed: every claim's steps are looked at, and
those that do not hold any more are applied again.

Running pods keep their claims over an upgrade of the driver, and their containers may be started
again at any time, without a call of the kubelet: their CDI files have to name files that exist.
Nothing is replaced while the new driver is incomplete. A few claims at a time, each in line with
the kubelet's own calls for it: those of a GPU that hangs do not keep the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.steps.cdi import CdiStep
from nvdra_nodeagent.steps.domain_cdi import ChannelCdiStep, DaemonCdiStep
from nvdra_nodeagent.steps.domain_ready import DomainReadyStep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nvdra_nodeagent.claims.ledger import Ledger
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.claims.sweeper import ThreadHop

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 30.0
SETTLE_S: Final = 3.0
_FIRST_RETRY_S: Final = 2.0
_JITTER: Final = 0.2
_AT_ONCE: Final = 8
_WITH_FILE: Final = (CdiStep, ChannelCdiStep, DaemonCdiStep)


@dataclass(slots=True)
class VerifyReport:
    """UIDs whose steps hold, those mended, and why others have to wait."""

    held: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    duration_s: float = 0.0


class Verifier:
    """One pass at a time. `basis` identifies what effects rest on: the load of the driver and its
    files; it blocks, and raises `AgentError` while there is nothing to rest on."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        basis: Callable[[], str],
        verify: Callable[[Record], Awaitable[bool]],
        run: ThreadHop,
        with_files: Callable[[], Sequence[str]],
        interval_s: float = INTERVAL_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        """`verify` looks at one claim's steps and tells whether all of them held. `with_files` are
        the UIDs of the claims that have a CDI file; it blocks, and may raise `AgentError`.

        The basis is looked at every `interval_s`; a new one has to stay for `settle_s`.
        """
        self._ledger = ledger
        self._basis = basis
        self._verify = verify
        self._run = run
        self._with_files = with_files
        self._interval_s = interval_s
        self._settle_s = settle_s
        self._woken = asyncio.Event()
        self._verified = ""
        self._told: dict[str, str] = {}
        self.last_turn_s = 0.0

    def wake(self) -> None:
        """The hardware or the driver has changed. In the loop only."""
        self._woken.set()

    async def run(self) -> None:
        """Eternal: at start, whenever the basis is another one or CDI files were removed, and again
        while claims wait."""
        retry_s = _FIRST_RETRY_S
        while True:
            self._turn()
            try:
                is_done = await self._round()
            except Exception:  # the root of this task: the next round may do better
                log.exception("verifying crashed")
                is_done = False
            if is_done:
                retry_s = _FIRST_RETRY_S
            pause_s = self._interval_s if is_done else retry_s
            retry_s = min(2 * retry_s, self._interval_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * random.uniform(1 - _JITTER, 1 + _JITTER)):
                    await self._woken.wait()
            self._woken.clear()

    def _turn(self) -> None:
        """`last_turn_s`, on the loop's clock: each round, and each claim of one."""
        self.last_turn_s = asyncio.get_running_loop().time()

    async def _round(self) -> bool:
        """Look whether there is something to do, and do it; whether nothing is left to do."""
        basis = await self._current_basis()
        if not basis:
            return False
        if basis != self._verified:
            await asyncio.sleep(self._settle_s)
            if await self._current_basis() != basis:
                return False
            if self._verified:
                log.info("the driver changed under the claims; verifying them")
        elif not (self._told or await self._lacks_files()):
            return True
        report = await self.verify_all()
        self._verified = basis  # not before: who is stopped meanwhile has not verified all
        return not report.waiting

    async def _lacks_files(self) -> bool:
        """Somebody cleaned the CDI directory: containers of running pods could not be restarted."""

        def lacking() -> list[str]:
            self._ledger.refresh()
            answered_for = [
                record.claim.uid for record in self._ledger.records() if _has_file(record)
            ]
            present = set(self._with_files()) if answered_for else set()
            return [uid for uid in answered_for if uid not in present]

        try:
            uids = await self._run(lacking)
        except AgentError:
            return False  # whoever prepares or unprepares a claim tells
        if uids:
            log.warning("claims without CDI files; verifying all", claims=uids)
        return bool(uids)

    async def verify_all(self) -> VerifyReport:
        """Look at every claim's steps now. Never raises for a single claim."""
        report = VerifyReport()
        started = time.monotonic()
        turns = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(record: Record) -> None:
            async with turns:
                await self._verify_one(record, report)
                self._turn()

        async with asyncio.TaskGroup() as group:
            for record in await self._records(report):
                group.create_task(in_turn(record), name=f"look at {record.claim}")
        report.duration_s = time.monotonic() - started
        if report.mended or report.waiting:
            log.info(
                "claims verified",
                held=len(report.held),
                mended=len(report.mended),
                waiting=len(report.waiting),
                duration_s=round(report.duration_s, 3),
            )
        self._told = report.waiting
        return report

    async def _records(self, report: VerifyReport) -> tuple[Record, ...]:
        def listed() -> tuple[Record, ...]:
            self._ledger.refresh()
            return self._ledger.records()

        try:
            return await self._run(listed)
        except AgentError as error:
            log.warning("claims not verified", error=str(error))
            report.waiting[""] = str(error)
            return ()

    async def _current_basis(self) -> str:
        try:
            return await self._run(self._basis)
        except AgentError as error:
            log.debug("claims not verified", cause=str(error))
            return ""

    async def _verify_one(self, record: Record, report: VerifyReport) -> None:
        uid = record.claim.uid
        try:
            held = await self._verify(record)
        except AgentError as error:
            report.waiting[uid] = str(error)
            if self._told.get(uid) != str(error):
                log.warning(
                    "claim not as prepared", claim=uid, reason=error.reason, error=str(error)
                )
            return
        except Exception as error:  # one claim that cannot be looked at keeps no other
            log.exception("verifying a claim crashed", claim=uid)
            report.waiting[uid] = repr(error)
            return
        (report.held if held else report.mended).append(uid)


def _has_file(record: Record) -> bool:
    """Not yet where the claim waits for its domain."""
    waits = any(isinstance(e.step, DomainReadyStep) and e.result is None for e in record.steps)
    return not waits and any(isinstance(entry.step, _WITH_FILE) for entry in record.steps)
