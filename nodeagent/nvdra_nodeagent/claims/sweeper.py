"""Removes what is left when nobody will ever ask for it: claims that vanished, files of no claim.

A dry run does all but the removing: it says what would go.

A claim counts as gone only when the API says so for its UID. The kubelet may still be ending its
pods then (they can be deleted by force), so claims of this boot have to stay gone for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, TypeVar

import structlog

from nvdra_nodeagent.claims.litter import Litter, find_litter
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.errors import AgentError, Retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from nvdra_nodeagent.claims.ledger import Ledger
    from nvdra_nodeagent.claims.observer import ClaimObserver
    from nvdra_nodeagent.claims.reader import ClaimReader
    from nvdra_nodeagent.steps.cdi import CdiFiles

log = structlog.get_logger(__name__)

DEFAULT_GRACE_S: Final = 120.0
_LEAST_PAUSE_S: Final = 30.0
_LITTER_AGE_S: Final = 60.0  # a write takes milliseconds; another agent may be writing

SweptKind: TypeAlias = Literal[
    "record", "cdi_file", "temporary", "cdi_temporary", "lock", "socket", "reason"
]
"""What a sweep may find."""

T = TypeVar("T")


class ThreadHop(Protocol):
    async def __call__(self, work: Callable[[], T]) -> T: ...


@dataclass(slots=True)
class SweepReport:
    """UIDs released, files removed, and UIDs that wait for their grace to pass.

    Of a dry run: those that would be.
    """

    released: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    suspected: list[str] = field(default_factory=list)
    kinds: Counter[SweptKind] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A claim that holds something here. `ref` is None when only its UID is known."""

    uid: str
    ref: ClaimRef | None
    kind: SweptKind
    this_boot: bool


class Sweeper:
    """One sweep at a time; see the module for what is never touched."""

    def __init__(
        self,
        ledger: Ledger,
        reader: ClaimReader,
        *,
        cdi: CdiFiles,
        state_dir: Path,
        directories: Sequence[Path],
        boot_id: str,
        run: ThreadHop,
        is_busy: Callable[[str], bool],
        release: Callable[[ClaimRef], Awaitable[bool]],
        observer: ClaimObserver,
        grace_s: float = DEFAULT_GRACE_S,
        dry_run: bool = False,
    ) -> None:
        """`release` unprepares a claim on the ordinary path and tells whether it worked.
        `directories` are those below `state_dir` that hold files of claims."""
        self._ledger = ledger
        self._reader = reader
        self._cdi = cdi
        self._state_dir = state_dir
        self._directories = directories
        self._boot_id = boot_id
        self._run = run
        self._is_busy = is_busy
        self._release = release
        self._observer = observer
        self._grace_s = grace_s
        self._dry_run = dry_run
        self._missing_since: dict[str, float] = {}
        self._woken = asyncio.Event()
        self.last_turn_s = 0.0
        """When it last went on to another claim, or came round: the loop's clock. A single claim
        takes less than a minute; all of them may take long while the API server does not answer."""

    def wake(self) -> None:
        """A device is held by a claim that the scheduler thinks gone. In the loop only."""
        self._woken.set()

    async def run(self, *, interval_s: float, jitter_s: float) -> None:
        """Eternal. All nodes may start at once, so even the first sweep waits a random time."""
        await asyncio.sleep(random.uniform(0, jitter_s))
        while True:
            try:
                report = await self.sweep()
            except Exception:  # the root of this task: the next sweep may do better
                log.exception("sweep crashed")
                report = SweepReport()
            soon = min(interval_s, self._grace_s) if report.suspected else interval_s
            await self._pause(soon + random.uniform(0, jitter_s))

    async def _pause(self, pause_s: float) -> None:
        least_s = min(pause_s, _LEAST_PAUSE_S)
        await asyncio.sleep(least_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s - least_s):
                await self._woken.wait()
        self._woken.clear()

    async def sweep(self) -> SweepReport:
        """Never raises for what it could not find out or remove."""
        self._turn()
        report = SweepReport()
        try:
            suspects = await self._run(self._suspects)
            gone = await self._gone(suspects)
            await self._run(lambda: self._clean(report))
        except AgentError as error:
            log.warning("sweep incomplete", error=str(error))
            return report
        self._missing_since = {
            suspect.uid: self._missing_since.get(suspect.uid, time.monotonic()) for suspect in gone
        }
        for suspect in gone:
            self._turn()
            await self._judge(suspect, report)
        self._tell(report)
        return report

    def _turn(self) -> None:
        self.last_turn_s = asyncio.get_running_loop().time()

    def _tell(self, report: SweepReport) -> None:
        if self._dry_run:
            self._observer.would_sweep({str(kind): count for kind, count in report.kinds.items()})
            log.info("sweep would remove", claims=report.released, files=report.litter)
            return
        for kind in report.kinds.elements():
            self._observer.swept(kind)
        log.debug("swept", released=report.released, suspected=report.suspected)

    async def _judge(self, suspect: _Suspect, report: SweepReport) -> None:
        missing_s = time.monotonic() - self._missing_since[suspect.uid]
        if suspect.this_boot and missing_s < self._grace_s:
            report.suspected.append(suspect.uid)
            return
        if self._is_busy(suspect.uid):
            return
        if self._dry_run or await self._released(suspect):
            report.released.append(suspect.uid)
            report.kinds[suspect.kind] += 1

    async def _released(self, suspect: _Suspect) -> bool:
        log.info("releasing a claim that is gone", claim=suspect.uid, kind=suspect.kind)
        if not await self._release(suspect.ref or ClaimRef("", "", suspect.uid)):
            return False
        del self._missing_since[suspect.uid]
        return True

    def _suspects(self) -> list[_Suspect]:
        """Files are listed before records: a claim prepared in between has both."""
        files = self._cdi.claim_uids()
        self._ledger.refresh()
        found = {
            record.claim.uid: _Suspect(
                record.claim.uid,
                record.claim if record.claim.name else None,
                "record",
                record.boot_id == self._boot_id,
            )
            for record in self._ledger.records()
        }
        for fence in self._ledger.fences():
            if not fence.newer:
                found[fence.uid] = _Suspect(fence.uid, fence.claim, "record", this_boot=True)
        for uid in files:
            found.setdefault(uid, _Suspect(uid, None, "cdi_file", this_boot=True))
        return list(found.values())

    async def _gone(self, suspects: Sequence[_Suspect]) -> list[_Suspect]:
        """Who of them is not in the API; whoever cannot be asked about is not gone."""
        gone = []
        for suspect in suspects:
            if suspect.ref is None or self._is_busy(suspect.uid):
                continue
            self._turn()
            try:
                if await self._reader.current_uid(suspect.ref) != suspect.uid:
                    gone.append(suspect)
            except AgentError as error:
                log.warning("claim not checked", claim=suspect.uid, error=str(error))
        return gone + await self._gone_unnamed([s for s in suspects if s.ref is None])

    async def _gone_unnamed(self, suspects: Sequence[_Suspect]) -> list[_Suspect]:
        if not suspects:
            return []
        try:
            present = await self._reader.all_uids()
        except AgentError as error:
            log.warning("claims not listed", error=str(error))
            return []
        return [suspect for suspect in suspects if suspect.uid not in present]

    def _clean(self, report: SweepReport) -> None:
        """One file that cannot be removed keeps no other."""
        found = find_litter(self._state_dir, self._directories, older_than_s=_LITTER_AGE_S)
        cdi = self._cdi.find_temporaries(older_than_s=_LITTER_AGE_S)
        for each in (*found, *(Litter("cdi_temporary", path) for path in cdi)):
            try:
                if self._dry_run or each.remove():
                    report.litter.append(str(each.path))
                    report.kinds[each.kind] += 1
            except Retryable as error:
                log.warning("file not removed", kind=each.kind, error=str(error))
