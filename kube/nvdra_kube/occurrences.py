"""Which occurrences become Events: repeats are counted, and nobody can flood the API server.

Pure: time comes in as monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from nvdra_kube.api import Body

Severity: TypeAlias = Literal["Normal", "Warning"]

# Repeats within this time are one Event with a count; the API server forgets Events after an hour.
_WINDOW_S: Final = 600.0
# Per object: as many new Events and counts at once, then one per five minutes, as client-go does.
_BURST: Final = 25
_REFILL_S: Final = 300.0
_REMEMBERED: Final = 2048
# The limit that events.k8s.io sets to notes.
_MAX_NOTE: Final = 1024


class Occurrence(NamedTuple):
    """What happened to which object; equal ones are repeats of each other."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    type: Severity
    reason: str
    note: str

    @classmethod
    def of(cls, regarding: Body, *, type: Severity, reason: str, note: str) -> Occurrence:
        """Raises `KeyError` or the like for what is no object with a name."""
        metadata = regarding["metadata"]
        return cls(
            api_version=str(regarding.get("apiVersion", "")),
            kind=str(regarding.get("kind", "")),
            namespace=str(metadata.get("namespace") or ""),
            name=str(metadata["name"]),
            uid=str(metadata.get("uid") or ""),
            type=type,
            reason=reason,
            note=_shortened(note),
        )


@dataclass(slots=True)
class Record:
    """One Event: what it counts, and how much of it the API server knows."""

    occurrence: Occurrence
    first: str
    last: str
    seen_s: float
    count: int = 1
    event_name: str = ""
    """Empty until it was created."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_s: float


@dataclass(slots=True)
class Occurrences:
    """Remembers recent occurrences, the oldest are forgotten first."""

    _records: OrderedDict[Occurrence, Record] = field(default_factory=OrderedDict)
    _buckets: OrderedDict[tuple[str, ...], _Bucket] = field(default_factory=OrderedDict)

    def note(self, occurrence: Occurrence, *, now_s: float, stamp: str) -> Record | None:
        """The record to be written now; None if the object has had too many Events.

        `stamp` is the wall-clock time as the API writes it.
        """
        if not self._allowed(occurrence, now_s):
            return None
        record = self._records.pop(occurrence, None)
        if record is None or now_s - record.seen_s > _WINDOW_S:
            record = Record(occurrence, first=stamp, last=stamp, seen_s=now_s)
        else:
            record.count, record.last, record.seen_s = record.count + 1, stamp, now_s
        self._records[occurrence] = record
        if len(self._records) > _REMEMBERED:
            self._records.popitem(last=False)
        return record

    def _allowed(self, occurrence: Occurrence, now_s: float) -> bool:
        key = occurrence[:5]
        bucket = self._buckets.pop(key, None) or _Bucket(_BURST, now_s)
        bucket.tokens = min(_BURST, bucket.tokens + (now_s - bucket.filled_s) / _REFILL_S)
        bucket.filled_s = now_s
        self._buckets[key] = bucket
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _shortened(note: str) -> str:
    if len(note.encode(errors="replace")) <= _MAX_NOTE:
        return note
    cut = note.encode(errors="replace")[: _MAX_NOTE - 3].decode(errors="ignore")
    return f"{cut}..."
