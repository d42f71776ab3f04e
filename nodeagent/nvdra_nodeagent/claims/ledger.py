"""Who holds which device: the journal in memory, kept equal to the files.

The files are the truth, because two agents share them during a rolling update. A refresh costs one
directory listing; only files that changed are read.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from nvdra_nodeagent.claims.journal import Damaged, Journal, salvage
from nvdra_nodeagent.claims.record import Fence
from nvdra_nodeagent.errors import Retryable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nvdra_nodeagent.claims.record import Record

log = structlog.get_logger(__name__)


class Ledger:
    """Records and fences by claim UID. Safe to use from several threads; file calls block."""

    def __init__(
        self,
        journal: Journal,
        *,
        traces: Callable[[], Mapping[str, Sequence[str]]] = dict,
        on_quarantine: Callable[[Fence], None] = lambda fence: None,
    ) -> None:
        """`traces` names claims that left artefacts on the node, with the devices these show."""
        self._journal = journal
        self._traces = traces
        self._on_quarantine = on_quarantine
        self._lock = threading.Lock()
        self._inodes: dict[str, int] = {}
        self._records: dict[str, Record] = {}
        self._fences: dict[str, Fence] = {}
        self._loaded = False

    def refresh(self) -> None:
        """Take over what another agent changed; the first time, load everything.

        The listing and what follows from it are one critical section: a thread that has written a
        file enters it here only afterwards, so a file that is known and not listed was removed.
        """
        with self._lock:
            entries = self._journal.entries()
            for uid in [uid for uid in self._inodes if uid not in entries]:
                self._forget_vanished(uid)
            for uid, inode in entries.items():
                if self._inodes.get(uid) != inode:
                    self._inodes[uid] = inode
                    self._read(uid)
            if not self._loaded:
                self._load_fences()
                self._loaded = True

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

    def commit(self, record: Record) -> None:
        """Write the record, durably; a fence of its claim is settled by it."""
        uid = record.claim.uid
        inode = self._journal.write(record)
        with self._lock:
            self._inodes[uid] = inode
            self._records[uid] = record
            fence = self._fences.pop(uid, None)
        if fence:
            self._settle(uid)

    def release(self, uid: str) -> None:
        """The claim holds nothing any more: remove its record and settle its fence."""
        self._journal.remove(uid)
        with self._lock:
            self._inodes.pop(uid, None)
            self._records.pop(uid, None)
            fence = self._fences.pop(uid, None)
        if fence:
            self._settle(uid)

    def device_counts(self) -> dict[str, int]:
        """Held devices by type."""
        with self._lock:
            return dict(Counter(held.type for r in self._records.values() for held in r.devices))

    def _read(self, uid: str) -> None:
        try:
            record = self._journal.read(uid)
        except Damaged as damage:
            self._records.pop(uid, None)
            self._fence(salvage(uid, damage))
            return
        if record is not None:  # else it vanished since it was listed; the next refresh sees that
            self._records[uid] = record
            self._fences.pop(uid, None)

    def _fence(self, fence: Fence) -> None:
        """Only this record is out of use; a newer one stays where its writer will look for it."""
        log.error("claim record unusable", claim=fence.uid, reason=fence.reason)
        self._fences[fence.uid] = self._with_traces(fence)
        self._on_quarantine(fence)
        if fence.newer:
            return
        try:
            self._journal.set_aside(fence.uid, fence.reason)
        except Retryable as error:
            log.error("claim record not moved to quarantine", claim=fence.uid, error=str(error))
            return
        self._inodes.pop(fence.uid, None)

    def _forget_vanished(self, uid: str) -> None:
        del self._inodes[uid]
        record = self._records.pop(uid, None)
        if self._journal.is_quarantined(uid):  # by the other agent; we still know what it held
            self._fences[uid] = _fence_of(record, uid=uid)
        else:
            self._fences.pop(uid, None)

    def _load_fences(self) -> None:
        """Claims without a usable record: set aside earlier, or known only by what they left."""
        for uid, damage in self._journal.quarantined().items():
            if uid in self._records:  # died between writing the new record and settling
                self._settle(uid)
            elif uid not in self._fences:
                self._fences[uid] = self._with_traces(salvage(uid, damage))
        for uid, names in self._traces().items():
            if uid not in self._records and uid not in self._fences:
                log.warning("claim without record", claim=uid, devices=list(names))
                self._fences[uid] = Fence(uid=uid, reason="record missing", devices=tuple(names))

    def _with_traces(self, fence: Fence) -> Fence:
        names = self._traces().get(fence.uid, ())
        return Fence(
            uid=fence.uid,
            reason=fence.reason,
            devices=tuple(dict.fromkeys((*fence.devices, *names))),
            gpu_uuids=fence.gpu_uuids,
            claim=fence.claim,
            newer=fence.newer,
        )

    def _settle(self, uid: str) -> None:
        """Best effort: a good record, or none and no artefact, outranks what was set aside."""
        try:
            self._journal.settle(uid)
        except Retryable as error:
            log.warning("quarantine not cleaned", claim=uid, error=str(error))


def _fence_of(record: Record | None, *, uid: str) -> Fence:
    if record is None:
        return Fence(uid=uid, reason="damaged")
    return Fence(
        uid=uid,
        reason="damaged",
        devices=tuple(held.device for held in record.devices),
        gpu_uuids=tuple(record.gpu_uuids()),
        claim=record.claim,
    )
