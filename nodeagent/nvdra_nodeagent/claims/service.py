"""The claims of this node, as the kubelet's calls see them."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import structlog

from nvdra_nodeagent.cdi.names import is_claim_uid
from nvdra_nodeagent.claims.allocation import parse_claim
from nvdra_nodeagent.claims.effects import GpuEffects
from nvdra_nodeagent.claims.executor import Executor, MoreGpus
from nvdra_nodeagent.claims.journal import Journal
from nvdra_nodeagent.claims.ledger import Ledger
from nvdra_nodeagent.claims.locks import ClaimLocks, LockFile
from nvdra_nodeagent.claims.model import ClaimRef, ClaimService, PreparedDevice
from nvdra_nodeagent.claims.observer import SilentObserver
from nvdra_nodeagent.claims.patience import DEFAULT_BUDGET_S, Patience
from nvdra_nodeagent.claims.plan import PlanRules, gpus_of
from nvdra_nodeagent.claims.reader import ClaimReader
from nvdra_nodeagent.claims.reconcile import Reconciler
from nvdra_nodeagent.claims.sweeper import DEFAULT_GRACE_S, Sweeper
from nvdra_nodeagent.claims.tombstones import Tombstones
from nvdra_nodeagent.claims.undertaker import Undertaker
from nvdra_nodeagent.claims.workshop import DEFAULT_THREADS, Threads, Workshop
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable
from nvdra_nodeagent.steps.cdi import CdiHandler, CdiStep
from nvdra_nodeagent.steps.registry import StepHandlers
from nvdra_nodeagent.steps.time_slice import TimeSliceHandler, TimeSliceStep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from nvdra_api import FeatureGates
    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.claims.observer import ClaimObserver, Operation, StateKind
    from nvdra_nodeagent.claims.reconcile import ReconcileReport
    from nvdra_nodeagent.claims.record import Fence
    from nvdra_nodeagent.claims.sweeper import SweepReport
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.steps.cdi import CdiFiles
    from nvdra_nodeagent.steps.registry import SharedStep
    from nvdra_nodeagent.steps.shared import GpuSetting

log = structlog.get_logger(__name__)

DRAIN_S: Final = 5.0
LOCK_PATIENCE_S: Final = 30.0
"""How long work that nobody asked for waits for locks."""

T = TypeVar("T")
_Devices: TypeAlias = tuple[PreparedDevice, ...]
_DOING: Final = {"prepare": "preparing", "unprepare": "unpreparing"}
_Outcome: TypeAlias = _Devices | AgentError | None


class NodeClaims(ClaimService):
    """Prepares and unprepares claims of one driver on one node.

    Claims of a call are independent of each other and run at once; those on the same GPU take
    turns. Work goes on when the caller is gone, and a repeated call joins it.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        driver: str,
        pool: str,
        inventory: Callable[[], Inventory],
        cdi: CdiFiles,
        settings: Mapping[type[SharedStep], GpuSetting],
        state_dir: Path,
        gates: FeatureGates,
        boot_id: str,
        observer: ClaimObserver | None = None,
        retry_budget_s: float = DEFAULT_BUDGET_S,
        threads: int = DEFAULT_THREADS,
        sweep_grace_s: float = DEFAULT_GRACE_S,
    ) -> None:
        """`state_dir` holds the journal and is shared with another agent during an update.
        `settings` are the ways to set on a GPU what steps set there.

        `boot_id` is `/proc/sys/kernel/random/boot_id`. `retry_budget_s` bounds the retries inside
        one call and has to leave the kubelet's 45 s room for a last attempt. `sweep_grace_s` is how
        long a claim of this boot has to stay gone before it is released.

        :raises Retryable: the lock file in `state_dir` cannot be opened.
        """
        self._driver, self._pool = driver, pool
        self._inventory = inventory
        self._observer = observer or SilentObserver()
        self._patience = Patience(budget_s=retry_budget_s)
        self._reader = ClaimReader(api)
        self._lock_file = LockFile(state_dir / "locks")
        self._locks = ClaimLocks(self._lock_file)
        self._threads = Threads(threads)
        self._work: Workshop[_Outcome] = Workshop()
        self._loop: asyncio.AbstractEventLoop | None = None
        journal = Journal(state_dir)
        self._ledger = Ledger(
            journal,
            traces=cdi,
            on_quarantine=self._tell_quarantined,
        )
        effects = GpuEffects(
            state_dir,
            settings=settings,
            records=self._ledger.records,
            boot_id=boot_id,
            driver_load=lambda: inventory().driver_load,
            on_quarantine=partial(self._tell_damaged, "effect"),
        )
        tombstones = Tombstones(state_dir, on_quarantine=partial(self._tell_damaged, "tombstone"))
        handlers = StepHandlers(
            {
                CdiStep: CdiHandler(cdi, inventory=inventory),
                TimeSliceStep: TimeSliceHandler(effects),
            },
            timing=self._observer.step_done,
        )
        rules = PlanRules(driver=driver, gates=gates, cdi_id=cdi.device_id)
        self._executor = Executor(
            self._ledger,
            handlers,
            effects=effects,
            tombstones=tombstones,
            rules=rules,
            boot_id=boot_id,
        )
        self._undertaker = Undertaker(
            self._executor.unfinished,
            run=self._in_thread,
            is_busy=self._work.is_busy,
            finish=self._finish,
            observer=self._observer,
        )
        self._sweeper = Sweeper(
            self._ledger,
            self._reader,
            cdi=cdi,
            directories=(
                journal.directory,
                journal.quarantine_directory,
                effects.directory,
                tombstones.directory,
            ),
            boot_id=boot_id,
            run=self._in_thread,
            is_busy=self._work.is_busy,
            release=self._release_swept,
            observer=self._observer,
            grace_s=sweep_grace_s,
        )
        self._reconciler = Reconciler(
            self._ledger,
            self._reader,
            traces=cdi,
            rules=rules,
            pool=pool,
            boot_id=boot_id,
            inventory=inventory,
            run=self._in_thread,
            exclusively=self._exclusively,
            is_busy=self._work.is_busy,
        )

    async def start(self) -> None:
        """Load the journal, so that the first call need not."""
        try:
            await self._in_thread(self._ledger.refresh)
        except AgentError as error:  # the disk may be mended; until then each call says so
            log.error("claim records not loaded", error=str(error))
            return
        self._observer.prepared_devices(self._ledger.device_counts())

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
        return await self._sweeper.sweep()

    async def reconcile(self) -> ReconcileReport:
        """Rebuild the records of fenced claims where possible. Never raises."""
        return await self._reconciler.reconcile()

    async def keep_finished(self) -> None:
        """Undo what claims that are gone have left behind; eternal, cancelled by its owner."""
        await self._undertaker.run()

    async def keep_swept(self, *, interval_s: float = 600.0, jitter_s: float = 60.0) -> None:
        """Reconcile and sweep at start and from then on; eternal, cancelled by its owner."""
        async with asyncio.TaskGroup() as tasks:
            for name, keeper in (("reconciler", self._reconciler), ("sweeper", self._sweeper)):
                work = keeper.run(interval_s=interval_s, jitter_s=jitter_s)
                tasks.create_task(work, name=name)

    def last_sweep_s(self) -> float:
        """When a sweep last began, on the loop's clock; 0 before the first one."""
        return self._sweeper.last_turn_s

    def oldest_work(self, *, now_s: float) -> tuple[str, float]:
        """The work on a claim that has been going on for longest, and for how long; ("", 0)."""
        return self._work.oldest(now_s=now_s)

    def fences(self) -> int:
        """How many claims may hold something of which nobody knows exactly what."""
        return len(self._ledger.fences())

    def hurry(self) -> None:
        """From now on nothing is tried again: the process is about to end."""
        self._patience.end()

    async def drain(self, *, timeout_s: float = DRAIN_S) -> None:
        """Return when no claim is being worked on. What takes longer than `timeout_s` is stopped;
        the next prepare or unprepare of its claim completes or undoes it."""
        self.hurry()
        for name in await self._work.drain(timeout_s=timeout_s):
            log.warning("claim work stopped unfinished", work=name)

    def close(self) -> None:
        """After `drain`: end the threads and let go of the lock file."""
        self._threads.close()
        self._lock_file.close()

    async def _outcomes(
        self, operation: Operation, claims: Sequence[ClaimRef]
    ) -> dict[str, _Outcome]:
        """Waiting for tasks does not own them: a cancelled caller leaves them running."""
        tasks = {ref: self._order(operation, ref) for ref in claims}
        if tasks:
            await asyncio.wait(set(tasks.values()))
        return {
            ref.uid: _overtaken(operation, ref) if task.cancelled() else task.result()
            for ref, task in tasks.items()
        }

    def _order(self, operation: Operation, ref: ClaimRef) -> asyncio.Task[_Outcome]:
        attempt = self._prepare_once if operation == "prepare" else self._unprepare_once
        return self._work.order(operation, ref, partial(self._carry_out, operation, attempt))

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
            outcome = await self._patience.persevere(partial(attempt, ref), claim=ref)
        except AgentError as error:
            outcome = _worded(error, operation=operation, ref=ref)
        except Exception as error:
            log.exception("claim work crashed", operation=operation, claim=ref.uid)
            crash = Retryable(
                "InternalError",
                f"unexpected {type(error).__name__}: {error}",
                hint="the agent's log has the details",
            )
            outcome = _worded(crash, operation=operation, ref=ref)
        finally:
            self._observer.in_flight(operation, -1)
        self._report(operation, ref, outcome, duration_s=time.monotonic() - started)
        return outcome

    async def _prepare_once(self, ref: ClaimRef, deadline: float) -> _Devices:
        if not is_claim_uid(ref.uid):
            raise Permanent("InvalidUid", f"{ref.uid!r} cannot be the UID of a claim")
        body = await self._reader.get(ref)
        self._observer.seen(ref, body)
        claim = parse_claim(body, ref=ref, driver=self._driver, pool=self._pool)
        inventory, abandoned = self._inventory(), threading.Event()
        return await self._locked(
            "prepare",
            ref.uid,
            lambda locked: self._executor.prepare(
                claim, inventory=inventory, locked=locked, is_abandoned=abandoned.is_set
            ),
            gpus=gpus_of(claim, inventory),
            deadline=deadline,
            on_cancel=abandoned.set,
        )

    async def _unprepare_once(self, ref: ClaimRef, deadline: float) -> None:
        if not is_claim_uid(ref.uid):
            return  # never prepared
        record = self._ledger.record(ref.uid)
        released = await self._locked(
            "unprepare",
            ref.uid,
            lambda locked: self._executor.release(ref.uid, locked=locked),
            gpus=record.gpu_uuids() if record else frozenset(),
            deadline=deadline,
        )
        if released.unfinished:
            self._undertaker.call(ref, released.unfinished)
        log.debug("claim released", claim=ref.uid, known=released.known)

    async def _locked(
        self,
        operation: Operation,
        uid: str,
        work: Callable[[frozenset[str]], T],
        *,
        gpus: frozenset[str],
        deadline: float,
        on_cancel: Callable[[], None] = lambda: None,
    ) -> T:
        """Run the blocking `work` in one hop, holding the claim's lock and those of its GPUs."""
        asked = time.monotonic()
        async with self._locks.claim(uid, deadline=deadline):
            while True:
                async with self._locks.gpus(gpus, deadline=deadline):
                    self._observer.lock_waited(operation, wait_s=time.monotonic() - asked)
                    try:
                        return await self._in_thread(partial(work, gpus), on_cancel=on_cancel)
                    except MoreGpus as more:
                        gpus |= more.uuids

    async def _exclusively(
        self, ref: ClaimRef, work: Callable[[], None], *, gpus: frozenset[str]
    ) -> None:
        """As one of the claim's own works: in line with those of the kubelet."""

        async def attempt(ref: ClaimRef) -> _Outcome:
            structlog.contextvars.bind_contextvars(claim=ref.uid)
            deadline = asyncio.get_running_loop().time() + LOCK_PATIENCE_S
            try:
                async with (
                    self._locks.claim(ref.uid, deadline=deadline),
                    self._locks.gpus(gpus, deadline=deadline),
                ):
                    await self._in_thread(work)
            except AgentError as error:
                return error
            return None

        task = self._work.order("reconcile", ref, attempt)
        await asyncio.wait([task])
        outcome = task.result()
        if isinstance(outcome, AgentError):
            raise outcome

    async def _finish(self, uid: str) -> ClaimRef | AgentError | None:
        """Undo what a claim that is gone has left, in line with the kubelet's calls for it."""
        found: ClaimRef | None = None

        async def attempt(ref: ClaimRef) -> _Outcome:
            nonlocal found
            structlog.contextvars.bind_contextvars(claim=uid)
            deadline = asyncio.get_running_loop().time() + LOCK_PATIENCE_S
            work = partial(self._executor.finish, uid)
            try:
                found = await self._locked(
                    "unprepare",
                    uid,
                    lambda locked: work(locked=locked),
                    gpus=frozenset(),
                    deadline=deadline,
                )
            except AgentError as error:
                return error
            return None

        task = self._work.order("finish", ClaimRef("", "", uid), attempt)
        await asyncio.wait([task])
        outcome = task.result()
        return outcome if isinstance(outcome, AgentError) else found

    async def _in_thread(
        self, work: Callable[[], T], *, on_cancel: Callable[[], None] = lambda: None
    ) -> T:
        self._loop = asyncio.get_running_loop()
        return await self._threads.run(work, on_cancel=on_cancel)

    async def _release_swept(self, ref: ClaimRef) -> bool:
        task = self._order("unprepare", ref)
        await asyncio.wait([task])
        return not task.cancelled() and task.result() is None

    def _report(
        self, operation: Operation, ref: ClaimRef, outcome: _Outcome, *, duration_s: float
    ) -> None:
        if isinstance(outcome, AgentError):
            self._observer.failed(operation, ref=ref, error=outcome, duration_s=duration_s)
            log.error(
                "claim failed",
                operation=operation,
                claim=ref.uid,
                reason=outcome.reason,
                error=str(outcome),
            )
            return
        self._observer.finished(operation, ref=ref, devices=outcome or (), duration_s=duration_s)
        self._observer.prepared_devices(self._ledger.device_counts())
        log.info(
            "claim done",
            operation=operation,
            claim=ref.uid,
            namespace=ref.namespace,
            name=ref.name,
            devices=[device.device for device in outcome or ()],
            duration_s=round(duration_s, 6),
        )

    def _tell_quarantined(self, fence: Fence) -> None:
        """From a worker thread."""
        if self._loop:
            told = partial(
                self._observer.quarantined,
                "record",
                uid=fence.uid,
                reason=fence.reason,
                ref=fence.claim,
            )
            self._loop.call_soon_threadsafe(told)
            self._loop.call_soon_threadsafe(self._reconciler.wake)

    def _tell_damaged(self, kind: StateKind, name: str, reason: str) -> None:
        """From a worker thread."""
        if self._loop:
            told = partial(self._observer.quarantined, kind, uid=name, reason=reason)
            self._loop.call_soon_threadsafe(told)


def _overtaken(operation: Operation, ref: ClaimRef) -> AgentError:
    error = Retryable("Overtaken", "the claim was unprepared meanwhile")
    return _worded(error, operation=operation, ref=ref)


def _worded(error: AgentError, *, operation: Operation, ref: ClaimRef) -> AgentError:
    message = f"error {_DOING[operation]} devices for claim {ref}: {error.message}"
    return type(error)(error.reason, message, hint=error.hint)
