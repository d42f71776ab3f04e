"""Who holds which device: the journal in memory, kept equal to the files.

The files are the truth, because two agents share them during a rolling update. A refresh costs one
directory listing; only files that changed are read.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from nvdra_nodeagent.claims.journal import Journal, Stamp, salvage
from nvdra_nodeagent.claims.record import Fence
from nvdra_nodeagent.claims.seal import Damaged
from nvdra_nodeagent.errors import Retryable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nvdra_nodeagent.claims.record import Record

log = structlog.get_logger(__name__)


class Traces(Protocol):
    """What claims leave on the node besides their record; it tells of devices if that is lost."""

    def claim_uids(self) -> Sequence[str]: ...

    def device_names(self, claim_uid: str) -> Sequence[str]:
        """None of them when there is no trace of the claim, or it cannot be read. Never raises."""
        ...


class Ledger:
    """Records and fences by claim UID. Safe to use from several threads; file calls block."""

    def __init__(
        self,
        journal: Journal,
        *,
        traces: Traces,
        on_quarantine: Callable[[Fence], None] = lambda fence: None,
    ) -> None:
        self._journal = journal
        self._traces = traces
        self._on_quarantine = on_quarantine
        self._lock = threading.Lock()
        self._stamps: dict[str, Stamp] = {}
        self._records: dict[str, Record] = {}
        self._fences: dict[str, Fence] = {}
        self._loaded = False
        self._begun = 0  # listings, by number
        self._done = 0

    def refresh(self) -> None:
        """Take over what another agent changed; the first time, load everything.

        The listing and what follows from it are one critical section: a thread that has written a
        file enters it here only afterwards, so a file that is known and not listed was removed.
        Those who wait for it at once are served by the first listing that begins after they asked.
        """
        asked = self._begun
        with self._lock:
            if self._done > asked:
                return
            self._begun += 1
            entries = self._journal.entries()
            for uid in [uid for uid in self._stamps if uid not in entries]:
                self._forget_vanished(uid)
            for uid, stamp in entries.items():
                if self._stamps.get(uid) != stamp:
                    self._read(uid, stamp)
            if not self._loaded:
                self._load_fences()
                self._loaded = True
            self._done = self._begun

    def record(self, uid: str) -> Record | None:
        with self._lock:
            return self._records.get(uid)

    def fence(self, uid: str) -> Fence | None:
        with self._lock:
            return self._fences.get(uid)

    def records(self) -> tuple[Record, ...]:
        with self._lock:
            return tuple(self._records.values())

    def fences(self) -> tuple[Fence, ...]:
        with self._lock:
            return tuple(self._fences.values())

    def left_files(self, uid: str) -> bool:
        """Whether the claim has artefacts on the node: all before them was done once."""
        return bool(self._traces.device_names(uid))

    # At a glance: for the event loop, which waits for nobody; a disk may hang under the lock.
    # What is being read anew at this moment may be missing. Each is one step of the interpreter.

    def glance(self) -> tuple[Fence, ...]:
        """`fences` at a glance."""
        return tuple(self._fences.values())

    def glance_at(self, uid: str) -> Record | None:
        """`record` at a glance."""
        return self._records.get(uid)

    def glance_at_records(self) -> tuple[Record, ...]:
        """`records` at a glance."""
        return tuple(self._records.values())

    def device_counts(self) -> dict[str, int]:
        """Held devices by type, at a glance."""
        return dict(Counter(held.type for r in self.glance_at_records() for held in r.devices))

    def commit(self, record: Record) -> None:
        """Write the record, durably; a fence of its claim is settled by it."""
        uid = record.claim.uid
        stamp = self._journal.write(record)
        with self._lock:
            self._stamps[uid] = stamp
            self._records[uid] = record
            fence = self._fences.pop(uid, None)
        if fence:
            self._settle(uid)

    def release(self, uid: str) -> None:
        """The claim holds nothing any more: remove its record and settle its fence."""
        self._journal.remove(uid)
        with self._lock:
            self._stamps.pop(uid, None)
            self._records.pop(uid, None)
            fence = self._fences.pop(uid, None)
        if fence:
            self._settle(uid)

    def explain(self, uid: str, obstacle: str) -> None:
        """Why the claim's fence stands, for whoever meets it."""
        with self._lock:
            if fence := self._fences.get(uid):
                self._fences[uid] = msgspec.structs.replace(fence, obstacle=obstacle)

    def widen(self, uid: str, devices: Iterable[str]) -> None:
        """The claim of the fence may hold these too."""
        with self._lock:
            if fence := self._fences.get(uid):
                names = _unique((*fence.devices, *devices))
                self._fences[uid] = msgspec.structs.replace(fence, devices=names)

    def _read(self, uid: str, stamp: Stamp) -> None:
        try:
            record = self._journal.read(uid)
        except Damaged as damage:
            self._stamps[uid] = stamp
            self._fence(salvage(uid, damage), last_known=self._records.pop(uid, None))
            return
        self._stamps[uid] = stamp
        if record is not None:  # else it vanished since it was listed; the next refresh sees that
            self._records[uid] = record
            if self._fences.pop(uid, None):  # its writer, in another thread, will not see it now
                self._settle(uid)

    def _fence(self, fence: Fence, *, last_known: Record | None) -> None:
        """Only this record is out of use; a newer one stays where its writer will look for it."""
        log.error("claim record unusable", claim=fence.uid, reason=fence.reason)
        fence = self._with_traces(fence)
        self._fences[fence.uid] = _joined(fence, last_known) if last_known else fence
        self._on_quarantine(fence)
        if fence.newer:
            return
        try:
            self._journal.set_aside(fence.uid, fence.reason)
        except Retryable as error:
            log.error("claim record not moved to quarantine", claim=fence.uid, error=str(error))
            return
        self._stamps.pop(fence.uid, None)

    def _forget_vanished(self, uid: str) -> None:
        """Released by the other agent, unless it moved the record aside or left the artefacts."""
        del self._stamps[uid]
        record = self._records.pop(uid, None)
        reason = "damaged" if self._journal.is_quarantined(uid) else "record missing"
        fence = self._with_traces(Fence(uid=uid, reason=reason))
        if fence.devices or reason == "damaged":
            self._fences[uid] = _joined(fence, record) if record else fence
        else:
            self._fences.pop(uid, None)

    def _load_fences(self) -> None:
        """Claims without a usable record: set aside earlier, or known only by what they left."""
        for uid, damage in self._journal.quarantined().items():
            if uid in self._records:  # died between writing the new record and settling
                self._settle(uid)
            elif uid not in self._fences:
                self._fences[uid] = self._with_traces(salvage(uid, damage))
        for uid in self._traces.claim_uids():
            if uid not in self._records and uid not in self._fences:
                fence = self._with_traces(Fence(uid=uid, reason="record missing"))
                log.warning("claim without record", claim=uid, devices=list(fence.devices))
                self._fences[uid] = fence

    def _with_traces(self, fence: Fence) -> Fence:
        seen = (name for name in self._traces.device_names(fence.uid) if name not in fence.free)
        return msgspec.structs.replace(fence, devices=_unique((*fence.devices, *seen)))

    def _settle(self, uid: str) -> None:
        """Best effort: a good record, or none and no artefact, outranks what was set aside."""
        try:
            self._journal.settle(uid)
        except Retryable as error:
            log.warning("quarantine not cleaned", claim=uid, error=str(error))


def _joined(fence: Fence, record: Record) -> Fence:
    """What was known before is better than what is left."""
    held = [device.device for device in record.devices if not device.admin]
    free = [device.device for device in record.devices if device.device not in held]
    left = [name for name in fence.devices if name not in free]
    return msgspec.structs.replace(
        fence,
        devices=_unique((*held, *left)),
        gpu_uuids=_unique((*sorted(record.gpu_uuids()), *fence.gpu_uuids)),
        claim=record.claim,
        free=_unique((*free, *fence.free)),
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
