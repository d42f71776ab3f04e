"""What a Lease says and what follows from it. Pure: no clock but the one that is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from nvdra_kube.resources import LEASES

if TYPE_CHECKING:
    from nvdra_kube.api import Body

# What client-go asks for, so that a failed renewal can be tried again at least once.
_RETRIES_WITHIN_DEADLINE: Final = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long a lease lasts unseen, how long a leader tries to renew it, and how often.

    Raises `ValueError` unless duration > deadline > 1.2 x retry period > 0.
    """

    lease_duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease_duration_s > self.renew_deadline_s:
            raise ValueError(
                f"the lease duration ({self.lease_duration_s:g} s) has to be longer than the "
                f"renew deadline ({self.renew_deadline_s:g} s)"
            )
        if not self.renew_deadline_s > _RETRIES_WITHIN_DEADLINE * self.retry_period_s:
            raise ValueError(
                f"the renew deadline ({self.renew_deadline_s:g} s) has to be longer than "
                f"{_RETRIES_WITHIN_DEADLINE} x the retry period ({self.retry_period_s:g} s)"
            )
        if not self.retry_period_s > 0:
            raise ValueError(f"the retry period ({self.retry_period_s:g} s) has to be positive")

    @property
    def request_timeout_s(self) -> float:
        """For one request: two of them that hang must not use up the deadline."""
        return self.renew_deadline_s / 2


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """`spec` of a Lease. The times are the writer's wall clock: compared for equality only."""

    holder: str = ""
    duration_s: int = 0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0

    @classmethod
    def of(cls, body: Body) -> LeaseRecord:
        """Read a Lease; what is missing or malformed counts as empty."""
        spec = body.get("spec")
        spec = spec if isinstance(spec, dict) else {}
        return cls(
            holder=_text(spec.get("holderIdentity")),
            duration_s=_number(spec.get("leaseDurationSeconds")),
            acquired=_text(spec.get("acquireTime")),
            renewed=_text(spec.get("renewTime")),
            transitions=_number(spec.get("leaseTransitions")),
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """A record, the object that held it last, and when we first saw it: our monotonic clock."""

    record: LeaseRecord
    at_s: float
    body: Body = field(repr=False, compare=False)

    def is_valid(self, *, now_s: float) -> bool:
        """Whether the record's own duration has not passed since we saw it change."""
        return self.at_s + self.record.duration_s > now_s

    def is_held_by_other(self, identity: str, *, now_s: float) -> bool:
        """Whether somebody else may be at work. A released lease is free at once."""
        holder = self.record.holder
        return bool(holder) and holder != identity and self.is_valid(now_s=now_s)


def observe(previous: Observation | None, body: Body, *, now_s: float) -> Observation:
    """What we know after seeing the object: an unchanged record keeps the time it was seen at."""
    record = LeaseRecord.of(body)
    if previous is None or previous.record != record:
        return Observation(record, now_s, body)
    return replace(previous, body=body)


def claim(seen: Observation | None, *, identity: str, times: LeaseTimes, now: str) -> LeaseRecord:
    """The record that makes or keeps `identity` the holder; None: there is no lease yet."""
    if seen is None:
        acquired, transitions = now, 0
    elif seen.record.holder == identity:
        acquired, transitions = seen.record.acquired or now, seen.record.transitions
    else:
        acquired, transitions = now, seen.record.transitions + 1
    # Whole seconds, and rather a longer lease than one that ends before its holder stops.
    duration_s = math.ceil(times.lease_duration_s)
    return LeaseRecord(identity, duration_s, acquired, now, transitions)


def release(record: LeaseRecord, *, now: str) -> LeaseRecord:
    """The record that lets anybody take the lease at once. A server refuses a duration of 0."""
    return LeaseRecord("", 1, now, now, record.transitions)


def lease_body(body: Body | None, record: LeaseRecord, *, namespace: str, name: str) -> Body:
    """The object to write: `body`, whose resourceVersion guards the write, with another record."""
    known = body or {"metadata": {"name": name, "namespace": namespace}}
    spec = {
        **(known.get("spec") or {}),
        "holderIdentity": record.holder,
        "leaseDurationSeconds": record.duration_s,
        "acquireTime": record.acquired,
        "renewTime": record.renewed,
        "leaseTransitions": record.transitions,
    }
    return {**known, "apiVersion": LEASES.api_version, "kind": LEASES.kind, "spec": spec}


def utc_stamp() -> str:
    """Now, as a MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
