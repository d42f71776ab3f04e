"""The claims of this node, as the kubelet's calls see them."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from nvdra_nodeagent.cdi.names import is_claim_uid
from nvdra_nodeagent.claims.answers import crashed, overtaken, unfinished, worded
from nvdra_nodeagent.claims.books import open_books
from nvdra_nodeagent.claims.model import ClaimService, PreparedDevice
from nvdra_nodeagent.claims.observer import Attempt, ClaimObserver
from nvdra_nodeagent.claims.patience import DEFAULT_BUDGET_S, Patience
from nvdra_nodeagent.claims.reader import ClaimReader
from nvdra_nodeagent.claims.studies import Studies
from nvdra_nodeagent.claims.sweeper import DEFAULT_GRACE_S
from nvdra_nodeagent.claims.upkeep import Keepers
from nvdra_nodeagent.claims.workplace import Workplace
from nvdra_nodeagent.claims.workshop import DEFAULT_THREADS
from nvdra_nodeagent.errors import AgentError, NotYet, Permanent, Retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.claims.books import NodeFacts, OwnSteps
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.observer import Damage, Operation
    from nvdra_nodeagent.claims.reconcile import ReconcileReport
    from nvdra_nodeagent.claims.record import HeldDevice, Record
    from nvdra_nodeagent.claims.sweeper import SweepReport
    from nvdra_nodeagent.claims.verifier import VerifyReport
    from nvdra_nodeagent.steps.cdi import CdiFiles
    from nvdra_nodeagent.steps.registry import SharedStep
    from nvdra_nodeagent.steps.shared import GpuSetting

log = structlog.get_logger(__name__)

DRAIN_S: Final = 5.0

_Devices: TypeAlias = tuple[PreparedDevice, ...]
_Outcome: TypeAlias = _Devices | AgentError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`retry_budget_s` bounds the retries inside one call and has to leave the kubelet's 45 s room
    for a last attempt; `answer_within_s` bounds the call, whose work goes on. `sweep_grace_s` is
    how long a claim of this boot has to stay gone before it is released; with `sweep_dry_run`
    nothing is, it is only said."""

    retry_budget_s: float = DEFAULT_BUDGET_S
    answer_within_s: float = 40.0
    sweep_grace_s: float = DEFAULT_GRACE_S
    sweep_dry_run: bool = False
    threads: int = DEFAULT_THREADS


DEFAULT_LIMITS: Final = Limits()


class NodeClaims(ClaimService):
    """Prepares and unprepares claims of one driver on one node.

    Claims of a call are independent of each other and run at once; those on the same GPU take
    turns. Work goes on when the caller is gone, and a repeated call joins it.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        node: NodeFacts,
        cdi: CdiFiles,
        settings: Mapping[type[SharedStep], GpuSetting],
        state_dir: Path,
        own_steps: OwnSteps = lambda records: {},
        observer: ClaimObserver | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`state_dir` holds the journal and is shared with another agent during an update.
        `settings` are the ways to set on a GPU what steps set there; `own_steps` makes handlers
        of steps that only this driver has.

        :raises Retryable: the lock file in `state_dir` cannot be opened.
        """
        self._node = node
        self._limits = limits
        self._observer = observer or ClaimObserver()
        self._patience = Patience(budget_s=limits.retry_budget_s)
        self._reader = ClaimReader(api)
        self._studies = Studies(self._reader, node=node, on_seen=self._observer.seen)
        self._place = Workplace(state_dir, threads=limits.threads, observer=self._observer)
        self._books = open_books(
            state_dir,
            node=node,
            cdi=cdi,
            settings=settings,
            timing=self._observer.step_done,
            on_damage=self._tell_damage,
            own_steps=own_steps,
        )
        self._keepers = self._make_keepers(cdi)

    def _make_keepers(self, cdi: CdiFiles) -> Keepers:
        return Keepers(
            self._books,
            self._reader,
            node=self._node,
            cdi=cdi,
            place=self._place,
            release=self._release_swept,
            observer=self._observer,
            sweep_grace_s=self._limits.sweep_grace_s,
            sweep_dry_run=self._limits.sweep_dry_run,
        )

    async def start(self) -> None:
        """Load the journal, so that the first call need not."""
        try:
            await self._place.in_thread(self._books.ledger.refresh)
        except AgentError as error:  # the disk may be mended; until then each call says so
            log.error("claim records not loaded", error=str(error))
            return
        self._observer.prepared_devices(self._books.ledger.device_counts())

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, _Devices | AgentError]:
        outcomes = await self._outcomes("prepare", claims)
        return {uid: outcome for uid, outcome in outcomes.items() if outcome is not None}

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, AgentError | None]:
        outcomes = await self._outcomes("unprepare", claims)
        return {
            uid: outcome if isinstance(outcome, AgentError) else None
            for uid, outcome in outcomes.items()
        }

    async def sweep(self) -> SweepReport:
        """Remove what no claim answers for. Never raises for what it could not find out."""
        return await self._keepers.sweeper.sweep()

    async def reconcile(self) -> ReconcileReport:
        """Rebuild the records of fenced claims where possible. Never raises."""
        return await self._keepers.reconciler.reconcile()

    async def keep_finished(self) -> None:
        """Undo what claims that are gone have left behind; eternal, cancelled by its owner."""
        await self._keepers.undertaker.run()

    async def keep_swept(self, *, interval_s: float = 600.0, jitter_s: float = 60.0) -> None:
        """Reconcile and sweep at start and from then on; eternal, cancelled by its owner."""
        await self._keepers.keep_swept(interval_s=interval_s, jitter_s=jitter_s)

    async def verify(self) -> VerifyReport:
        """Look at every claim's steps and mend what does not hold. Never raises for a claim."""
        return await self._keepers.verifier.verify_all()

    async def keep_verified(self) -> None:
        """Verify at start and whenever the driver has changed; eternal, cancelled by its owner."""
        await self._keepers.verifier.run()

    def hardware_changed(self) -> None:
        """The inventory is another one: effects on the hardware may be gone. In the loop only."""
        self._keepers.verifier.wake()

    def wake(self) -> None:
        """What claims wait for may have happened: try them now. In the loop only."""
        self._patience.wake()

    async def refresh(self) -> None:
        """Take over what another agent has written down. :raises AgentError: the disk refuses."""
        await self._place.in_thread(self._books.ledger.refresh)

    def records(self) -> tuple[Record, ...]:
        """What the claims of this node hold, as this agent last saw it."""
        return self._books.ledger.glance_at_records()

    def held_devices(self) -> tuple[HeldDevice, ...]:
        """The devices of all claims that are prepared."""
        return tuple(held for record in self.records() for held in record.devices)

    def last_sweep_s(self) -> float:
        """When a sweep last began, on the loop's clock; 0 before the first one."""
        return self._keepers.sweeper.last_turn_s

    def oldest_work(self, *, now_s: float) -> tuple[str, float]:
        """The work on a claim that has been going on for longest, and for how long; ("", 0)."""
        return self._place.work.oldest(now_s=now_s)

    def last_finish_s(self) -> float:
        """When what was put off was last looked at, on the loop's clock; 0 before that."""
        return self._keepers.undertaker.last_turn_s

    def last_verify_s(self) -> float:
        """When the verifier last came round, on the loop's clock; 0 before that."""
        return self._keepers.verifier.last_turn_s

    def tombstones(self) -> int:
        """Claims that are gone and had something left to undo, at the last look."""
        return self._keepers.undertaker.left

    def fences(self) -> int:
        """How many claims may hold something of which nobody knows exactly what."""
        return len(self._books.ledger.glance())

    def describe(self, *, now_s: float) -> list[str]:
        """What is being done, who holds which lock, what is held back: in lines for people."""
        work = self._place.work.under_way(now_s=now_s)
        return [
            *(f"work: {name}, for {age_s:.1f} s" for name, age_s in work),
            *(f"lock: {line}" for line in self._place.locks.describe()),
            *(
                f"fence: claim {fence.claim or fence.uid}, {fence.reason}, "
                f"devices {', '.join(fence.devices) or 'unknown'}"
                for fence in self._books.ledger.glance()
            ),
        ]

    def hurry(self) -> None:
        """From now on nothing is tried again: the process is about to end."""
        self._patience.end()

    async def drain(self, *, timeout_s: float = DRAIN_S) -> None:
        """Return when no claim is being worked on. What takes longer than `timeout_s` is stopped;
        the next prepare or unprepare of its claim completes or undoes it."""
        self.hurry()
        for name in await self._place.work.drain(timeout_s=timeout_s):
            log.warning("claim work stopped unfinished", work=name)

    def close(self) -> None:
        """After `drain`: end the threads and let go of the lock file."""
        self._place.close()

    async def _outcomes(
        self, operation: Operation, claims: Sequence[ClaimRef]
    ) -> dict[str, _Outcome]:
        """Waiting for tasks does not own them: a cancelled caller leaves them running, and so does
        one that has waited for long enough."""
        tasks = {ref: self._order(operation, ref) for ref in claims}
        if tasks:
            await asyncio.wait(set(tasks.values()), timeout=self._limits.answer_within_s)
        return {ref.uid: self._outcome(operation, ref, task) for ref, task in tasks.items()}

    def _outcome(
        self, operation: Operation, ref: ClaimRef, task: asyncio.Task[_Outcome]
    ) -> _Outcome:
        if not task.done():
            return self._unfinished(operation, ref)
        return overtaken(operation, ref) if task.cancelled() else task.result()

    def _unfinished(self, operation: Operation, ref: ClaimRef) -> AgentError:
        cause = self._patience.last_failure(ref.uid)
        log.warning("answered before the work has ended", operation=operation, claim=ref.uid)
        waited_s = self._limits.answer_within_s
        return unfinished(operation, ref, waited_s=waited_s, last=cause)

    def _order(self, operation: Operation, ref: ClaimRef) -> asyncio.Task[_Outcome]:
        attempt = self._prepare_once if operation == "prepare" else self._unprepare_once
        return self._place.work.order(operation, ref, partial(self._carry_out, operation, attempt))

    async def _carry_out(
        self,
        operation: Operation,
        attempt: Callable[[ClaimRef, float], Awaitable[_Outcome]],
        ref: ClaimRef,
    ) -> _Outcome:
        """The root of a claim's task: whatever happens becomes the claim's outcome."""
        structlog.contextvars.bind_contextvars(claim=ref.uid)  # of this task and its threads
        started = time.monotonic()
        self._observer.in_flight(operation, 1)
        try:
            outcome = await self._patience.persevere(
                partial(attempt, ref),
                claim=ref,
                on_failure=self._met,
            )
        except AgentError as error:
            outcome = worded(error, operation=operation, ref=ref)
        except Exception as error:
            log.exception("claim work crashed", operation=operation, claim=ref.uid)
            outcome = crashed(operation, ref, error)
        finally:
            self._studies.forget(ref.uid)
            self._observer.in_flight(operation, -1)
        self._report(Attempt(operation, ref, time.monotonic() - started), outcome)
        return outcome

    def _met(self, cause: Retryable) -> None:
        if cause.reason == "DeviceInUse":
            self._keepers.sweeper.wake()  # its holder may be gone, and nobody will ask for it again

    async def _prepare_once(self, ref: ClaimRef, deadline: float) -> _Devices:
        if not is_claim_uid(ref.uid):
            raise Permanent("InvalidUid", f"{ref.uid!r} cannot be the UID of a claim")
        is_waiting = isinstance(self._patience.last_failure(ref.uid), NotYet)
        claim, study = await self._studies.of(ref, is_waiting=is_waiting)
        abandoned = threading.Event()
        return await self._place.locked(
            "prepare",
            ref.uid,
            lambda locked: self._books.executor.prepare(
                claim, study=study, locked=locked, is_abandoned=abandoned.is_set
            ),
            gpus=study.locks,
            deadline=deadline,
            on_cancel=abandoned.set,
        )

    async def _unprepare_once(self, ref: ClaimRef, deadline: float) -> None:
        if not is_claim_uid(ref.uid):
            return  # never prepared
        record = self._books.ledger.glance_at(ref.uid)
        released = await self._place.locked(
            "unprepare",
            ref.uid,
            lambda locked: self._books.executor.release(ref.uid, locked=locked),
            gpus=record.gpu_uuids() if record else frozenset(),
            deadline=deadline,
        )
        if released.unfinished:
            self._keepers.undertaker.call(ref, released.unfinished)
        log.debug("claim released", claim=ref.uid, known=released.known)

    async def _release_swept(self, ref: ClaimRef) -> bool:
        task = self._order("unprepare", ref)
        await asyncio.wait([task])
        return not task.cancelled() and task.result() is None

    def _report(self, attempt: Attempt, outcome: _Outcome) -> None:
        operation, ref = attempt.operation, attempt.ref
        if isinstance(outcome, AgentError):
            self._observer.failed(attempt, error=outcome)
            log.error(
                "claim failed",
                operation=operation,
                claim=ref.uid,
                reason=outcome.reason,
                error=str(outcome),
            )
            return
        self._observer.finished(attempt, devices=outcome or ())
        self._observer.prepared_devices(self._books.ledger.device_counts())
        log.info(
            "claim done",
            operation=operation,
            claim=ref.uid,
            namespace=ref.namespace,
            name=ref.name,
            devices=[device.device for device in outcome or ()],
            duration_s=round(attempt.duration_s, 6),
        )

    def _tell_damage(self, damage: Damage) -> None:
        """From a worker thread."""
        self._place.tell(partial(self._observer.quarantined, damage))
        if damage.kind == "record":
            self._place.tell(self._keepers.reconciler.wake)
