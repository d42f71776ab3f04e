"""Takes over the claims that an earlier driver prepared on this node, once, at the first start.

Each claim of `checkpoint.json` becomes a record or a fence of the journal; only when all are
durable, the file is renamed. Killed anywhere before, the next start finds the file and finishes;
claims that the journal knows already are left as they are. The CDI files stay: they have the names
that this agent gives, and running containers were told them.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_nodeagent.cdi.names import is_claim_uid
from nvdra_nodeagent.checkpoint.conversion import (
    EarlierNode,
    convert,
    fence_of_puzzle,
    gpu_record,
)
from nvdra_nodeagent.checkpoint.document import decode_checkpoint
from nvdra_nodeagent.claims.journal import Journal
from nvdra_nodeagent.claims.observer import Damage
from nvdra_nodeagent.claims.record import Fence
from nvdra_nodeagent.durable import move_durably, storage_error
from nvdra_nodeagent.errors import AgentError, NodeFault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nvdra_nodeagent.checkpoint.conversion import RecordMaker
    from nvdra_nodeagent.checkpoint.document import Checkpoint
    from nvdra_nodeagent.claims.observer import ClaimObserver
    from nvdra_nodeagent.claims.record import Record

log = structlog.get_logger(__name__)

NAME: Final = "checkpoint.json"
MIGRATED: Final = f"{NAME}.migrated"
UNREADABLE: Final = f"{NAME}.unreadable"
EXPORTED: Final = f"{NAME}.exported"
"""Digest of the checkpoint that the export command wrote; such a file is not taken over."""
LOCK: Final = "cp.lock"
"""The earlier driver locks it (flock) while it reads or writes its checkpoint."""

LOCK_PATIENCE_S: Final = 10.0
_LOCK_POLL_S: Final = 0.05


@dataclass(slots=True)
class MigrationReport:
    """UIDs by what became of them; of fenced ones also why."""

    recorded: list[str] = field(default_factory=list)
    fenced: dict[str, str] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)


class Migration:
    """Of one state directory. Calls block."""

    def __init__(
        self,
        state_dir: Path,
        journal: Journal,
        *,
        node: EarlierNode,
        make: RecordMaker = gpu_record,
        lock_patience_s: float = LOCK_PATIENCE_S,
    ) -> None:
        """`node.boot_id` is that of this boot, for checkpoints that have none. `make` knows the
        driver's devices.

        `damage` says after a run why the file could not be used, if so.
        """
        self._state_dir = state_dir
        self._journal = journal
        self._node = node
        self._make = make
        self._lock_patience_s = lock_patience_s
        self.damage = ""

    def run(self) -> MigrationReport | None:
        """None when there is nothing to take over.

        :raises Retryable: something could not be read or written; the next start tries again.
        """
        if not (self._state_dir / NAME).is_file():
            return None
        with _locked(self._state_dir / LOCK, patience_s=self._lock_patience_s):
            data = self._read()
            if data is None or is_export(self._state_dir, data):
                return None
            try:
                checkpoint = decode_checkpoint(data)
            except ValueError as error:
                self._set_aside(error)
                return None
            return self._take_over(checkpoint)

    def _read(self) -> bytes | None:
        path = self._state_dir / NAME
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None  # another agent was quicker
        except OSError as error:
            raise storage_error("read", path, error) from error

    def _set_aside(self, cause: ValueError) -> None:
        """Its claims are still told by their CDI files, and fenced."""
        log.error("checkpoint of an earlier driver unusable", cause=str(cause), kept_as=UNREADABLE)
        self.damage = str(cause)
        move_durably(self._state_dir / NAME, self._state_dir / UNREADABLE)

    def _take_over(self, checkpoint: Checkpoint) -> MigrationReport:
        report = MigrationReport()
        if not checkpoint.sealed:
            log.warning("checkpoint of an earlier driver has a wrong checksum")
        for outcome in self._outcomes(checkpoint):
            self._keep(outcome, report)
        move_durably(self._state_dir / NAME, self._state_dir / MIGRATED)
        log.info(
            "claims of an earlier driver taken over",
            recorded=report.recorded,
            fenced=list(report.fenced),
            known=report.known,
        )
        return report

    def _outcomes(self, checkpoint: Checkpoint) -> Iterator[Record | Fence]:
        node = replace(self._node, boot_id=checkpoint.boot_id or self._node.boot_id)
        for uid, entry in checkpoint.claims.items():
            yield convert(uid, entry, node=node, sealed=checkpoint.sealed, make=self._make)
        for uid, (cause, text) in checkpoint.puzzles.items():
            yield fence_of_puzzle(uid, cause, text)

    def _keep(self, outcome: Record | Fence, report: MigrationReport) -> None:
        uid = outcome.uid if isinstance(outcome, Fence) else outcome.claim.uid
        if not is_claim_uid(uid):
            log.warning("checkpoint of an earlier driver names no claim", uid=uid)
        elif uid in self._journal.entries() or self._journal.is_quarantined(uid):
            report.known.append(uid)
        elif isinstance(outcome, Fence):
            log.warning("claim fenced", claim=uid, reason=outcome.reason)
            self._journal.fence_off(outcome)
            report.fenced[uid] = outcome.reason
        else:
            self._journal.write(outcome)
            report.recorded.append(uid)


async def take_over(
    state_dir: Path,
    *,
    node: EarlierNode,
    observer: ClaimObserver,
    make: RecordMaker = gpu_record,
) -> None:
    """Before anything is served. Never raises: what could not be taken over is still told by CDI
    files, and fenced."""
    migration = Migration(state_dir, Journal(state_dir), node=node, make=make)
    try:
        report = await asyncio.to_thread(migration.run)
    except AgentError as error:
        log.error("claims of an earlier driver not taken over", error=str(error))
        return
    except Exception:  # a node without its driver would be worse; the next start tries again
        log.exception("taking over claims of an earlier driver crashed")
        return
    for uid, reason in report.fenced.items() if report else ():
        observer.quarantined(Damage(kind="checkpoint", uid=uid, reason=reason))
    if migration.damage:
        observer.quarantined(Damage(kind="checkpoint", uid="", reason=migration.damage))


def is_export(state_dir: Path, data: bytes) -> bool:
    """Whether the checkpoint is one that the export command wrote, to go back."""
    try:
        return (state_dir / EXPORTED).read_text(encoding="ascii").strip() == digest(data)
    except (OSError, UnicodeDecodeError):
        return False


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@contextmanager
def _locked(path: Path, *, patience_s: float) -> Iterator[None]:
    """Against the earlier driver and against a second agent. :raises Retryable: in vain."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage_error("open", path, error) from error
    try:
        _wait_for(descriptor, path, patience_s=patience_s)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _wait_for(descriptor: int, path: Path, *, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise NodeFault(
                    "CheckpointBusy",
                    f"{path} is locked by another program",
                    hint="stop the earlier driver's plugin on this node",
                ) from error
            time.sleep(_LOCK_POLL_S)
        except OSError as error:
            raise storage_error("lock", path, error) from error
        else:
            return
