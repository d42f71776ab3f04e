"""Carrying out plans so that a crash at any line leaves something that the next call finishes.

Everything here blocks and runs in one hop to a worker thread, with the claim and its GPUs locked.

Order, and why a claim whose only step is its CDI file needs one write of the journal: the record,
with the intent of every step, is durable before the first step is touched; each handler can tell
from the step alone whether it holds, so nothing more is written unless a step yields a result that
undoing needs. After a crash the record is found and either completed (prepare repairs what does not
hold) or undone (unprepare undoes every step of it, begun or not). Undoing removes the record last,
and therefore no CDI file exists without a record that answers for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from nvdra_nodeagent.claims.plan import Holdings, Plan, PlanRules, gpus_of, make_plan
from nvdra_nodeagent.claims.record import Record, StepEntry
from nvdra_nodeagent.errors import AgentError, Permanent
from nvdra_nodeagent.steps.cdi import CdiDevice, CdiStep

if TYPE_CHECKING:
    from nvdra_nodeagent.claims.allocation import AllocatedClaim
    from nvdra_nodeagent.claims.ledger import Ledger
    from nvdra_nodeagent.claims.model import PreparedDevice
    from nvdra_nodeagent.claims.record import Fence
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.steps.registry import StepHandlers

log = structlog.get_logger(__name__)


class MoreGpus(Exception):
    """The work touches GPUs that are not locked: lock these too and try again."""

    def __init__(self, uuids: frozenset[str]) -> None:
        super().__init__(f"also touches {', '.join(sorted(uuids))}")
        self.uuids = uuids


class Executor:
    """Prepares and releases single claims. See the module for what a crash leaves behind."""

    def __init__(
        self, ledger: Ledger, handlers: StepHandlers, *, rules: PlanRules, boot_id: str
    ) -> None:
        self._ledger = ledger
        self._handlers = handlers
        self._rules = rules
        self._boot_id = boot_id

    def prepare(
        self, claim: AllocatedClaim, *, inventory: Inventory, locked: frozenset[str]
    ) -> tuple[PreparedDevice, ...]:
        """Prepare, or complete and repeat an earlier prepare of the same allocation.

        :raises AgentError: nothing is left behind but what a later call can undo.
        :raises MoreGpus: nothing was done.
        """
        uid = claim.ref.uid
        self._ledger.refresh()
        self._refuse_newer(uid)
        record = self._ledger.record(uid)
        touched = gpus_of(claim, inventory) | (record.gpu_uuids() if record else frozenset())
        if not touched <= locked:
            raise MoreGpus(touched)
        if record and self._is_current(record, claim):
            return self._repeat(record)
        plan = self._plan(claim, inventory)
        if record:
            log.info("earlier preparation replaced", claim=uid, boot_id=record.boot_id)
            self._undo(record)
        return self._begin(claim, plan).prepared()

    def release(self, uid: str, *, locked: frozenset[str]) -> bool:
        """Undo everything of the claim; False when nothing of it was known.

        :raises AgentError: something could not be undone; the record is still there.
        :raises MoreGpus: nothing was done.
        """
        self._ledger.refresh()
        self._refuse_newer(uid)
        record, fence = self._ledger.record(uid), self._ledger.fence(uid)
        if record is None:
            # Also for a claim never heard of: a record may have been deleted by hand.
            self._undo_step(StepEntry(_salvaged_step(uid, fence)))
            if fence:
                self._ledger.release(uid)
            return fence is not None
        if not record.gpu_uuids() <= locked:
            raise MoreGpus(record.gpu_uuids())
        self._undo(record)
        self._ledger.release(uid)
        return True

    def _is_current(self, record: Record, claim: AllocatedClaim) -> bool:
        """Effects from before a reboot are unverified: they are made anew."""
        return record.boot_id == self._boot_id and record.allocation == claim.fingerprint

    def _repeat(self, record: Record) -> tuple[PreparedDevice, ...]:
        for index, entry in enumerate(record.steps):
            if not self._handlers.handler(entry.step).holds(entry.step, entry.result):
                log.warning(
                    "step applied again", claim=record.claim.uid, step=type(entry.step).__name__
                )
                record = self._apply(record, index)
        return record.prepared()

    def _plan(self, claim: AllocatedClaim, inventory: Inventory) -> Plan:
        holdings = Holdings(self._ledger.records(), self._ledger.fences())
        return make_plan(claim, inventory=inventory, holdings=holdings, rules=self._rules)

    def _begin(self, claim: AllocatedClaim, plan: Plan) -> Record:
        record = Record(
            claim=claim.ref,
            boot_id=self._boot_id,
            allocation=claim.fingerprint,
            devices=plan.devices,
            steps=tuple(StepEntry(step) for step in plan.steps),
        )
        self._ledger.commit(record)
        try:
            for index in range(len(record.steps)):
                record = self._apply(record, index)
        except Exception:
            self._roll_back(claim.ref.uid)
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

    def _roll_back(self, uid: str) -> None:
        """Best effort: what cannot be undone now stays in the journal for the next call."""
        record = self._ledger.record(uid)
        if record is None:
            return
        try:
            self._undo(record)
            self._ledger.release(uid)
        except AgentError as error:
            log.warning("rollback incomplete", claim=uid, error=str(error))

    def _undo(self, record: Record) -> None:
        for entry in reversed(record.steps):
            self._undo_step(entry)

    def _undo_step(self, entry: StepEntry) -> None:
        self._handlers.handler(entry.step).undo(entry.step, entry.result)

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
