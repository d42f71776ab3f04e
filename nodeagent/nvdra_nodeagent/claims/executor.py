"""Carrying out plans so that a crash at any line leaves something that the next call finishes.

Everything here blocks and runs in one hop to a worker thread, with the claim and its GPUs locked.

Order, and why a claim whose only step is its CDI file needs one write of the journal: the record,
with the intent of every step, is durable before the first step is touched; each handler can tell
from the step alone whether it holds, so nothing more is written unless a step yields a result that
undoing needs. After a crash the record is found and either completed (prepare repairs what does not
hold) or undone (unprepare undoes every step of it, begun or not). Undoing removes the record last,
and therefore no CDI file exists without a record that answers for it. A step that cannot be undone
when its claim is released moves into a tombstone before the record goes, if it can wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog

from nvdra_nodeagent.claims.effect import applied_earlier, is_unknown
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.plan import Holdings
from nvdra_nodeagent.claims.record import Record, StepEntry
from nvdra_nodeagent.claims.tombstones import Tombstone, Tombstones
from nvdra_nodeagent.errors import AgentError, NotYet, Permanent, Retryable
from nvdra_nodeagent.steps.cdi import CdiDevice, CdiStep
from nvdra_nodeagent.steps.registry import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nvdra_nodeagent.claims.allocation import AllocatedClaim
    from nvdra_nodeagent.claims.effects import GpuEffects
    from nvdra_nodeagent.claims.ledger import Ledger
    from nvdra_nodeagent.claims.model import PreparedDevice
    from nvdra_nodeagent.claims.plan import Plan, Study
    from nvdra_nodeagent.claims.record import Fence
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.steps.registry import StepHandlers

log = structlog.get_logger(__name__)


class MoreGpus(Exception):
    """The work touches GPUs that are not locked: lock these too and try again."""

    def __init__(self, uuids: frozenset[str]) -> None:
        super().__init__(f"also touches {', '.join(sorted(uuids))}")
        self.uuids = uuids


@dataclass(frozen=True, slots=True)
class Released:
    """`known`: something of the claim was here. `unfinished`: why something of it still is."""

    known: bool
    unfinished: AgentError | None = None


class Executor:
    """Prepares and releases single claims. See the module for what a crash leaves behind."""

    def __init__(
        self,
        ledger: Ledger,
        handlers: StepHandlers,
        *,
        effects: GpuEffects,
        tombstones: Tombstones,
        boot_id: str,
        inventory: Callable[[], Inventory],
    ) -> None:
        self._ledger = ledger
        self._handlers = handlers
        self._effects = effects
        self._tombstones = tombstones
        self._boot_id = boot_id
        self._inventory = inventory

    def prepare(
        self,
        claim: AllocatedClaim,
        *,
        study: Study,
        locked: frozenset[str],
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> tuple[PreparedDevice, ...]:
        """Prepare, or complete and repeat an earlier prepare of the same allocation.

        `is_abandoned` is asked before each step: nobody wants the rest when it is true.

        :raises NotYet: what was done so far stays, recorded, for the next attempt.
        :raises AgentError: nothing is left behind but what a later call can undo.
        :raises MoreGpus: nothing was done.
        """
        uid = claim.ref.uid
        self._ledger.refresh()
        self._refuse_newer(uid)
        record, tombstone = self._ledger.record(uid), self._tombstones.get(uid)
        touched = study.locks | self._gpus_left(uid, record, tombstone)
        if not touched <= locked:
            raise MoreGpus(touched)
        if tombstone:
            self._lay_to_rest(tombstone)
        if record and self._is_current(record, claim):
            self._complete(record, study)
            return record.prepared()
        plan = self._plan(study, is_known=bool(record or self._ledger.fence(uid)))
        if record:
            log.info("earlier preparation replaced", claim=uid, boot_id=record.boot_id)
            self._undo_for(record, plan)
            entries = [StepEntry(step) for step in plan.steps]
        else:
            entries = self._resumed(uid, plan)
        return self._begin(claim, plan, entries, is_abandoned).prepared()

    def release(self, uid: str, *, locked: frozenset[str]) -> Released:
        """Undo everything of the claim, or leave a tombstone for what cannot be undone now.

        :raises AgentError: its own artefacts could not be removed; the record is still there.
        :raises MoreGpus: nothing was done.
        """
        self._ledger.refresh()
        self._refuse_newer(uid)
        record, fence = self._ledger.record(uid), self._ledger.fence(uid)
        touched = self._gpus_left(uid, record, None)
        if not touched <= locked:
            raise MoreGpus(touched)
        if record is None:
            return self._release_unrecorded(uid, fence)
        remaining, cause = self._undo_what_can(record.steps)
        if cause:
            self._tombstones.write(Tombstone(record.claim, remaining, str(cause)))
        self._ledger.release(uid)
        return Released(known=True, unfinished=cause)

    def unfinished(self) -> frozenset[str]:
        """Claims that are gone and have left something to undo. One look at two directories."""
        self._ledger.refresh()
        known = {record.claim.uid for record in self._ledger.records()}
        known |= {fence.uid for fence in self._ledger.fences()}
        return frozenset(self._tombstones.uids()) | (self._effects.holders() - known)

    def finish(self, uid: str, *, locked: frozenset[str]) -> ClaimRef | None:
        """Undo what a claim that is gone has left; answers the claim, None when nothing was left.

        :raises AgentError: not possible now either; all of it, or a part, is still there.
        :raises MoreGpus: nothing was done.
        """
        self._ledger.refresh()
        tombstone = self._tombstones.get(uid)
        is_known = bool(self._ledger.record(uid) or self._ledger.fence(uid))
        if is_known and not tombstone:
            return None  # it has been prepared again
        touched = self._gpus_left(uid, None, tombstone)
        if not touched <= locked:
            raise MoreGpus(touched)
        if tombstone:
            self._lay_to_rest(tombstone)
            return tombstone.claim
        if is_unknown(uid) and self._may_be_held(touched):
            self._effects.set_aside_damaged(touched)
            return None  # until these claims are known again, or gone
        self._effects.drop_strays(uid)
        return ClaimRef("", "", uid) if touched else None

    def _may_be_held(self, gpu_uuids: frozenset[str]) -> bool:
        inventory = self._inventory()
        return any(
            extent.gpu_uuid in gpu_uuids
            for fence in self._ledger.fences()
            for extent in fence.extents(inventory)
        )

    def verify(self, uid: str, *, locked: frozenset[str]) -> bool:
        """Look whether the claim's steps hold, and apply again those that do not; whether all did.

        :raises AgentError: a step cannot be looked at or applied now.
        :raises MoreGpus: nothing was done.
        """
        self._ledger.refresh()
        record = self._ledger.record(uid)
        if record is None:
            return True
        if not record.gpu_uuids() <= locked:
            raise MoreGpus(record.gpu_uuids())
        return not self._mend(record)

    def _gpus_left(
        self, uid: str, record: Record | None, tombstone: Tombstone | None
    ) -> frozenset[str]:
        """The GPUs that undoing whatever there is of the claim may touch."""
        gpus = tombstone.gpu_uuids() if tombstone else frozenset[str]()
        return gpus | (record.gpu_uuids() if record else self._effects.gpus_held_by(uid))

    def _is_current(self, record: Record, claim: AllocatedClaim) -> bool:
        """Effects from before a reboot are unverified: they are made anew."""
        return record.boot_id == self._boot_id and record.allocation == claim.fingerprint

    def _complete(self, record: Record, study: Study) -> None:
        try:
            self._mend(record, tell=log.info)
        except NotYet:
            self._plan(study, is_known=True)  # says so when waiting has become pointless
            raise

    def _mend(self, record: Record, *, tell: Callable[..., object] = log.warning) -> int:
        """Apply again what does not hold (any more, or yet); how many steps that were."""
        mended = 0
        for index, entry in enumerate(record.steps):
            if not self._handlers.handler(entry.step).holds(entry.step, entry.result):
                record = self._apply(record, index)
                mended += 1
                tell("step applied again", claim=record.claim.uid, step=kind_of(type(entry.step)))
        return mended

    def _plan(self, study: Study, *, is_known: bool) -> Plan:
        """`is_known`: the claim was here before, and may be what an unknown holder stands for."""
        records = self._ledger.records()
        left = self._effects.fences(study.locks, known=(record.claim.uid for record in records))
        if is_known:
            left = tuple(fence for fence in left if not is_unknown(fence.uid))
        fences = (*self._ledger.fences(), *self._tombstones.fences(), *left)
        return study.plan(Holdings(records, fences))

    def _resumed(self, uid: str, plan: Plan) -> list[StepEntry]:
        """Of a claim without a record: effects that it has are dropped, to be taken anew. Where its
        files are there and an effect is not, both its notes of what was found are lost."""
        held = self._effects.gpus_held_by(uid)
        self._effects.drop_strays(uid)
        if not self._ledger.left_files(uid):
            return [StepEntry(step) for step in plan.steps]
        return [
            StepEntry(step) if step.gpu_uuids & held else applied_earlier(step)
            for step in plan.steps
        ]

    def _begin(
        self,
        claim: AllocatedClaim,
        plan: Plan,
        entries: Sequence[StepEntry],
        is_abandoned: Callable[[], bool],
    ) -> Record:
        record = Record(
            claim=claim.ref,
            boot_id=self._boot_id,
            allocation=claim.fingerprint,
            devices=plan.devices,
            steps=tuple(entries),
        )
        self._ledger.commit(record)
        begun = 0
        try:
            for index in range(len(record.steps)):
                if is_abandoned():
                    raise Retryable("Overtaken", "the claim was unprepared meanwhile")
                begun += 1
                record = self._apply(record, index)
        except NotYet:
            raise
        except Exception:
            self._roll_back(record, begun=begun)
            raise
        return record

    def _apply(self, record: Record, index: int) -> Record:
        entry = record.steps[index]
        result = self._handlers.handler(entry.step).apply(entry.step)
        if result == entry.result:
            return record
        steps = list(record.steps)
        steps[index] = StepEntry(entry.step, result)
        record = msgspec.structs.replace(record, steps=tuple(steps))
        self._ledger.commit(record)
        return record

    def _roll_back(self, record: Record, *, begun: int) -> None:
        """Best effort: what cannot be undone now stays in the journal for the next call."""
        uid = record.claim.uid
        try:
            for entry in reversed(record.steps[:begun]):
                self._undo_step(entry)
            self._ledger.release(uid)
        except AgentError as error:
            log.warning("rollback incomplete", claim=uid, error=str(error))

    def _undo_for(self, record: Record, plan: Plan) -> None:
        """All but what another boot has left as the plan wants it again."""
        for entry in reversed(record.steps):
            outlasts = self._handlers.handler(entry.step).outlasts_boot
            if not (outlasts and entry.step in plan.steps):
                self._undo_step(entry)

    def _undo_step(self, entry: StepEntry) -> None:
        self._handlers.handler(entry.step).undo(entry.step, entry.result)

    def _undo_what_can(
        self, steps: Sequence[StepEntry]
    ) -> tuple[tuple[StepEntry, ...], AgentError | None]:
        """In reverse. What has to be left, in order, and the first reason why.

        :raises AgentError: a step of a kind that cannot wait was not undone.
        """
        remaining: list[StepEntry] = []
        cause: AgentError | None = None
        for entry in reversed(steps):
            try:
                self._undo_step(entry)
            except AgentError as error:
                if not self._handlers.handler(entry.step).can_wait:
                    raise
                remaining.insert(0, entry)
                cause = cause or error
        return tuple(remaining), cause

    def _lay_to_rest(self, tombstone: Tombstone) -> None:
        remaining, cause = self._undo_what_can(tombstone.steps)
        if cause is None:
            self._tombstones.remove(tombstone.claim.uid)
            return
        if remaining != tombstone.steps:
            self._tombstones.write(Tombstone(tombstone.claim, remaining, str(cause)))
        raise cause

    def _release_unrecorded(self, uid: str, fence: Fence | None) -> Released:
        """Also for a claim never heard of: a record may have been deleted by hand."""
        self._undo_step(StepEntry(_salvaged_step(uid, fence)))
        cause = self._forget(uid)
        if uid not in self._tombstones.uids():
            try:
                self._effects.drop_strays(uid)
            except AgentError as error:
                cause = error  # the effect itself tells, to us and to the next agent
        if fence:
            self._ledger.release(uid)
        return Released(known=fence is not None, unfinished=cause)

    def _forget(self, uid: str) -> AgentError | None:
        """:raises AgentError: what cannot wait could not be undone."""
        cause: AgentError | None = None
        for handler in self._handlers.all():
            try:
                handler.forget(uid)
            except AgentError as error:
                if not handler.can_wait:
                    raise
                cause = cause or error
        return cause

    def _refuse_newer(self, uid: str) -> None:
        fence = self._ledger.fence(uid)
        if fence and fence.newer:
            raise Permanent(
                "RecordTooNew",
                f"the record of the claim was written by a later version: {fence.reason}",
                hint="install that version again, at least until its pods have ended",
            )


def _salvaged_step(uid: str, fence: Fence | None) -> CdiStep:
    names = fence.devices if fence else ()
    return CdiStep(uid, tuple(CdiDevice(name, "") for name in names))
