"""Gives a claim whose record is lost a record again, where everything else agrees on what it holds.

Asked are the claim in the API (allocated to this node and reserved), its CDI file (it was prepared,
with these devices) and the hardware (the devices are there). What they do not agree on stays
fenced, and says why. A claim that is gone is the sweeper's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import structlog

from nvdra_nodeagent.claims.allocation import parse_claim
from nvdra_nodeagent.claims.effect import applied_earlier
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.overlap import extent_of
from nvdra_nodeagent.claims.plan import Holdings
from nvdra_nodeagent.claims.record import Record
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.allocation import AllocatedClaim
    from nvdra_nodeagent.claims.ledger import Ledger, Traces
    from nvdra_nodeagent.claims.plan import Plan, Planner, Study
    from nvdra_nodeagent.claims.reader import ClaimReader
    from nvdra_nodeagent.claims.record import Fence, HeldDevice
    from nvdra_nodeagent.claims.sweeper import ThreadHop
    from nvdra_nodeagent.inventory.model import Inventory

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S: Final = 5.0


class Exclusively(Protocol):
    """Runs blocking work in a thread while nothing else works on the claim and these GPUs.

    :raises AgentError: from the work, or the locks were not to be had.
    """

    async def __call__(
        self, ref: ClaimRef, work: Callable[[], None], *, gpus: frozenset[str]
    ) -> None: ...


@dataclass(slots=True)
class ReconcileReport:
    """UIDs that got a record, records that got what they lacked, and why others have to wait.

    `told` are the causes that the log has from the last pass.
    """

    told: Mapping[str, str] = field(default_factory=dict)
    rebuilt: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)

    def wait(self, uid: str, cause: str, *, what: str) -> None:
        self.waiting[uid] = cause
        if self.told.get(uid) != cause:
            log.warning(what, claim=uid, cause=cause)


class Reconciler:
    """One pass at a time, over fences and over records that lack something."""

    def __init__(
        self,
        ledger: Ledger,
        reader: ClaimReader,
        *,
        traces: Traces,
        planner: Planner,
        pool: str,
        boot_id: str,
        inventory: Callable[[], Inventory],
        run: ThreadHop,
        exclusively: Exclusively,
        is_busy: Callable[[str], bool],
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._traces = traces
        self._planner = planner
        self._pool = pool
        self._boot_id = boot_id
        self._inventory = inventory
        self._run = run
        self._exclusively = exclusively
        self._is_busy = is_busy
        self._woken = asyncio.Event()
        self._told: Mapping[str, str] = {}

    def wake(self) -> None:
        """There is a new fence. In the loop only."""
        self._woken.set()

    async def run(self, *, interval_s: float, jitter_s: float) -> None:
        """Eternal. Costs nothing while there are no fences; what has to wait is tried again soon
        at first, and then with the interval."""
        pause_s = random.uniform(0, min(jitter_s, _FIRST_PAUSE_S))
        waits = _FIRST_PAUSE_S
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), pause_s)
                waits = _FIRST_PAUSE_S
            self._woken.clear()
            try:
                report = await self.reconcile()
            except Exception:  # the root of this task: the next pass may do better
                log.exception("reconciling crashed")
                report = ReconcileReport()
            waits = min(2 * waits, interval_s) if report.waiting else _FIRST_PAUSE_S
            pause_s = (waits if report.waiting else interval_s) + random.uniform(0, jitter_s)

    async def reconcile(self) -> ReconcileReport:
        """Never raises for what it could not find out."""
        report = ReconcileReport(told=self._told)
        self._told = report.waiting
        try:
            fences, records = await self._run(self._open_questions)
            bodies = await self._unnamed(fences, records)
        except AgentError as error:
            report.wait("", str(error), what="claims not reconciled")
            return report
        for fence in fences:
            await self._settle(fence, bodies, report)
        for record in records:
            await self._complete(record, bodies, report)
        if report.rebuilt or report.completed:
            log.info("claims reconciled", rebuilt=report.rebuilt, completed=report.completed)
        return report

    def _open_questions(self) -> tuple[list[Fence], list[Record]]:
        self._ledger.refresh()
        fences = [fence for fence in self._ledger.fences() if not fence.newer]
        records = [
            record
            for record in self._ledger.records()
            if not record.claim.name or any(map(_is_coarse, record.devices))
        ]
        return fences, records

    async def _unnamed(
        self, fences: Sequence[Fence], records: Sequence[Record]
    ) -> Mapping[str, Body]:
        """The claims of the cluster by UID, if one of these cannot be asked for by name."""
        refs = (*(fence.claim for fence in fences), *(record.claim for record in records))
        if all(ref and ref.name for ref in refs):
            return {}
        return await self._reader.by_uid()

    async def _settle(
        self, fence: Fence, bodies: Mapping[str, Body], report: ReconcileReport
    ) -> None:
        if self._is_busy(fence.uid):
            return
        try:
            await self._rebuild(fence, bodies)
        except AgentError as error:
            report.wait(fence.uid, error.message, what="claim stays fenced")
            await self._run(partial(self._ledger.explain, fence.uid, error.message))
        except Exception as error:  # one claim that cannot be rebuilt keeps no other
            log.exception("rebuilding a claim crashed", claim=fence.uid)
            report.wait(fence.uid, repr(error), what="claim stays fenced")
        else:
            report.rebuilt.append(fence.uid)

    async def _rebuild(self, fence: Fence, bodies: Mapping[str, Body]) -> None:
        """:raises AgentError: why the claim has to stay fenced."""
        body = await self._body(fence, bodies)
        ref = _ref_of(body)
        claim = parse_claim(body, ref=ref, driver=self._planner.driver, pool=self._pool)
        held = [result.device for result in claim.results if not result.admin]
        await self._run(partial(self._ledger.widen, fence.uid, held))
        if not body["status"].get("reservedFor"):
            raise Retryable("NotReserved", f"claim {ref} is reserved for no pod")
        study = await self._planner.study(claim)
        await self._exclusively(ref, lambda: self._rebuild_locked(claim, study), gpus=study.locks)

    async def _body(self, fence: Fence, bodies: Mapping[str, Body]) -> Body:
        if fence.claim and fence.claim.name:
            body = await self._reader.get(fence.claim)
            if _ref_of(body).uid == fence.uid:
                return body
        elif fence.uid in bodies:
            return bodies[fence.uid]
        raise Permanent("ClaimNotFound", "the claim is gone; it is released by the sweeper")

    def _rebuild_locked(self, claim: AllocatedClaim, study: Study) -> None:
        uid = claim.ref.uid
        self._ledger.refresh()
        fence = self._ledger.fence(uid)
        if fence is None or fence.newer:
            return  # settled since
        plan = study.plan(Holdings(self._ledger.records(), self._ledger.fences()))
        check_artefact(plan, self._traces.device_names(uid))
        log.info("claim record rebuilt", claim=uid, devices=[held.device for held in plan.devices])
        self._ledger.commit(
            Record(
                claim=claim.ref,
                boot_id=self._boot_id,
                allocation=claim.fingerprint,
                devices=plan.devices,
                steps=tuple(map(applied_earlier, plan.steps)),
            )
        )

    async def _complete(
        self, record: Record, bodies: Mapping[str, Body], report: ReconcileReport
    ) -> None:
        uid = record.claim.uid
        ref = _ref_of(bodies[uid]) if uid in bodies else record.claim
        if self._is_busy(uid):
            return
        inventory = self._inventory()
        if ref == record.claim and _refined(record, inventory) == record.devices:
            report.wait(
                uid, "neither the API nor the hardware tells more", what="record incomplete"
            )
            return
        try:
            await self._exclusively(
                ref, lambda: self._complete_locked(ref, inventory), gpus=record.gpu_uuids()
            )
        except AgentError as error:
            report.wait(uid, error.message, what="record incomplete")
        else:
            report.completed.append(uid)

    def _complete_locked(self, ref: ClaimRef, inventory: Inventory) -> None:
        self._ledger.refresh()
        record = self._ledger.record(ref.uid)
        if record is None:
            return  # unprepared since
        claim = record.claim if record.claim.name else ref
        new = msgspec.structs.replace(record, claim=claim, devices=_refined(record, inventory))
        if new != record:
            self._ledger.commit(new)


def check_artefact(plan: Plan, seen: Sequence[str]) -> None:
    """:raises Retryable: the claim's CDI file is not of these devices, or there is none."""
    planned = {held.device for held in plan.devices}
    if not seen:
        raise Retryable("NotPrepared", "it has no CDI file that can be read")
    if planned != set(seen):
        raise Retryable(
            "NotPrepared",
            f"its CDI file has {', '.join(sorted(seen))}, "
            f"allocated is {', '.join(sorted(planned))}",
        )


def _refined(record: Record, inventory: Inventory) -> tuple[HeldDevice, ...]:
    """MIG devices of which only the GPU was known get their own extent, once they are seen."""
    return tuple(_refined_device(held, inventory) for held in record.devices)


def _is_coarse(held: HeldDevice) -> bool:
    return held.type == "mig" and held.extent.mig is None


def _refined_device(held: HeldDevice, inventory: Inventory) -> HeldDevice:
    device = inventory.devices.get(held.device)
    if not _is_coarse(held) or device is None or device.uuid != held.uuid:
        return held
    return msgspec.structs.replace(held, extent=extent_of(device))


def _ref_of(body: Body) -> ClaimRef:
    metadata = body["metadata"]
    return ClaimRef(metadata.get("namespace", ""), metadata["name"], metadata["uid"])
