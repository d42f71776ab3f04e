"""Reports what became of claims to the API server, beside the work on claims and never in its way.

Reports wait in a bounded queue, the newest of each claim; one task writes them. What a killed agent
had not written yet is lost without harm: the next outcome of the claim is reported again, and a
claim that says of itself that it failed is corrected by the next prepare that succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.observer import ClaimObserver
from nvdra_nodeagent.claims.reader import ClaimReader
from nvdra_nodeagent.errors import Permanent, Retryable
from nvdra_nodeagent.reporting.conditions import ConditionWriter, Readiness, Transient
from nvdra_nodeagent.reporting.notices import (
    failure,
    quarantine,
    recovery,
    undo_completed,
    undo_postponed,
)
from nvdra_nodeagent.reporting.report import Report
from nvdra_nodeagent.reporting.target import (
    bare_target,
    node_target,
    target_of,
    uid_of,
    was_failing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nvdra_kube.api import Body, KubeApi
    from nvdra_nodeagent.claims.model import PreparedDevice
    from nvdra_nodeagent.claims.observer import Attempt, Damage, Operation
    from nvdra_nodeagent.errors import AgentError
    from nvdra_nodeagent.reporting.notices import Notice
    from nvdra_nodeagent.reporting.report import ConditionPolicy, Recorder
    from nvdra_nodeagent.reporting.target import Target

log = structlog.get_logger(__name__)

MAX_WAITING: Final = 512
_MAX_IN_FLIGHT: Final = 256
_MAX_FAILING: Final = 2048
_TURN_S: Final = 30.0

K = TypeVar("K")
V = TypeVar("V")


class ClaimReporter(ClaimObserver):
    """Hears of claims in the event loop; `run` is the task that writes."""

    def __init__(
        self,
        api: KubeApi,
        *,
        driver: str,
        node: str,
        recorder: Recorder,
        conditions: ConditionPolicy = "failures",
        on_lost: Callable[[str], None] = lambda kind: None,
    ) -> None:
        """`node` is also the pool. `on_lost` is told `event` or `conditions` for each loss."""
        self._driver, self._node = driver, node
        self._recorder = recorder
        self._policy = conditions
        self._on_lost = on_lost
        self._reader = ClaimReader(api)
        self._writer = ConditionWriter(api, driver=driver)
        self._in_flight: OrderedDict[str, Body] = OrderedDict()
        self._failing: OrderedDict[str, Operation] = OrderedDict()
        self._waiting: OrderedDict[tuple[str, str], Report] = OrderedDict()
        self._wake = asyncio.Event()
        self._backoff = Backoff(first_s=0.2, limit_s=15.0)
        self.last_turn_s = 0.0
        """On the loop's clock; 0 before `run`."""

    @property
    def waiting(self) -> int:
        """Reports that are not written yet."""
        return len(self._waiting)

    # What is heard

    def seen(self, ref: ClaimRef, body: Body) -> None:
        if uid_of(body) == ref.uid:
            _remember(self._in_flight, ref.uid, body, limit=_MAX_IN_FLIGHT)

    def finished(self, attempt: Attempt, *, devices: Sequence[PreparedDevice]) -> None:
        operation, ref = attempt.operation, attempt.ref
        body = self._in_flight.pop(ref.uid, None)
        failed = self._failing.pop(ref.uid, None)
        if operation == "unprepare":
            if failed == "unprepare":
                self._queue(ref, "outcome", notice=recovery(operation, ref))
            return
        if failed or self._says_failed(body):
            notice = recovery(operation, ref)
            self._queue(ref, "outcome", notice=notice, body=body, readiness=_ready(notice))
        elif self._policy == "always":
            readiness = _ready(recovery(operation, ref))
            self._queue(ref, "outcome", body=body, readiness=readiness)

    def failed(self, attempt: Attempt, *, error: AgentError) -> None:
        operation, ref = attempt.operation, attempt.ref
        body = self._in_flight.pop(ref.uid, None)
        _remember(self._failing, ref.uid, operation, limit=_MAX_FAILING)
        notice = failure(error)
        readiness = Readiness(ready=False, reason=notice.reason, message=notice.note)
        self._queue(
            ref,
            "outcome",
            notice=notice,
            body=body,
            readiness=readiness if operation == "prepare" else None,
        )

    def quarantined(self, damage: Damage) -> None:
        ref = damage.ref or ClaimRef("", "", damage.uid)
        self._queue(ref, damage.kind, notice=quarantine(damage.kind, ref=ref, cause=damage.reason))

    def tombstone(self, ref: ClaimRef, *, error: AgentError | None) -> None:
        notice = undo_postponed(ref, error) if error else undo_completed(ref)
        self._queue(ref, "tombstone", notice=notice)

    def _says_failed(self, body: Body | None) -> bool:
        return body is not None and was_failing(body, driver=self._driver, pool=self._node)

    def _queue(
        self,
        ref: ClaimRef,
        topic: str,
        *,
        notice: Notice | None = None,
        body: Body | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        target = None if body is None else self._target(ref, body)
        report = Report(ref, notice, time.monotonic(), target, readiness)
        lost = _remember(self._waiting, (ref.uid, topic), report, limit=MAX_WAITING)
        if lost:
            self._lose(lost, "too many reports are waiting")
        self._wake.set()

    # What is written

    async def run(self) -> None:
        """Eternal, cancelled by its owner, who may `drain` afterwards."""
        while True:
            self.last_turn_s = asyncio.get_running_loop().time()
            if not self._waiting:
                await self._woken()
            elif await self._write_next():
                self._backoff.succeeded()
            else:
                await asyncio.sleep(self._backoff.failed())

    async def drain(self, *, timeout_s: float = 2.0) -> None:
        """Write what waits, each once, but not for longer than `timeout_s`; after `run`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for _ in range(len(self._waiting)):
                    await self._write_next()
        for report in self._waiting.values():
            self._lose(report, "the agent ends")
        self._waiting.clear()

    async def _woken(self) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TURN_S):
                await self._wake.wait()

    async def _write_next(self) -> bool:
        """Write the report that waits longest; False when the API server is in trouble.

        It waits until it is written: whoever stops this at an await loses nothing.
        """
        key, report = next(iter(self._waiting.items()))
        settled = await self._settle(report)
        if self._waiting.get(key) is report:  # else a newer one has taken its place
            if settled or report.is_late():
                del self._waiting[key]
            else:
                self._waiting.move_to_end(key)
        if not settled and report.is_late():
            self._lose(report, "the API server gives no usable answer")
        return settled

    async def _settle(self, report: Report) -> bool:
        """False when it has to be tried again."""
        try:
            target = report.target or await self._read(report)
            if report.notice and not report.is_told:
                report.is_told = True
                await self._tell(report.notice, target)
            return await self._write_condition(target, report)
        except (Retryable, *Transient) as error:
            log.debug("report put off", claim=report.ref.uid, cause=str(error))
            return False
        except Exception:  # a report that cannot be written must not keep others from it
            log.exception("report crashed", claim=report.ref.uid)
            self._on_lost("conditions" if report.is_told else "event")
            return True

    async def _read(self, report: Report) -> Target:
        """The claim as it is now; by its name alone where it is gone or cannot be had in time.

        :raises Retryable: the API gave no usable answer.
        """
        if not report.ref.name:
            return bare_target(report.ref)
        try:
            body = await self._reader.get(report.ref)
        except Permanent:
            return bare_target(report.ref)
        except Retryable:
            if report.is_late():
                return bare_target(report.ref)
            raise
        return self._target(report.ref, body)

    def _target(self, ref: ClaimRef, body: Body) -> Target:
        if uid_of(body) != ref.uid:  # another claim has its name now
            return bare_target(ref)
        return target_of(body, driver=self._driver, pool=self._node)

    async def _tell(self, notice: Notice, target: Target) -> None:
        about = [target.claim] if target.claim["metadata"]["name"] else []
        about += target.pods if notice.to_pods else ()
        about += [node_target(self._node)] if notice.to_node else []
        for regarding in about:
            await self._recorder.event(
                regarding, type=notice.severity, reason=notice.reason, note=notice.note
            )

    async def _write_condition(self, target: Target, report: Report) -> bool:
        if report.readiness and self._policy != "never":
            now_s = asyncio.get_running_loop().time()
            if not await self._writer.write(target, report.readiness, now_s=now_s):
                self._on_lost("conditions")
        return True

    def _lose(self, report: Report, why: str) -> None:
        log.warning("report lost", claim=report.ref.uid, cause=why)
        if report.notice and not report.is_told:
            self._on_lost("event")
        if report.readiness:
            self._on_lost("conditions")


def _ready(notice: Notice) -> Readiness:
    return Readiness(ready=True, reason="Prepared", message=notice.note)


def _remember(kept: OrderedDict[K, V], key: K, value: V, *, limit: int) -> V | None:
    """Put the newest last; what had to make room for it is returned."""
    kept[key] = value
    kept.move_to_end(key)
    return kept.popitem(last=False)[1] if len(kept) > limit else None
