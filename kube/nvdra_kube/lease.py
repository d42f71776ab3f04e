"""Leader election on a `coordination.k8s.io/v1` Lease: at most one of several processes works.

Follows the rules of client-go's elector, so that its processes and ours may stand for the same
lease. No clock but the local monotonic one decides: what others wrote is only ever compared with
what they wrote before.
"""

from __future__ import annotations

import asyncio
import enum
import random
import secrets
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from nvdra_kube.errors import ApiError, Conflict, NotFound, Unreachable
from nvdra_kube.lease_record import (
    LeaseTimes,
    Observation,
    claim,
    lease_body,
    observe,
    release,
    utc_stamp,
)
from nvdra_kube.resources import LEASES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.lease_record import LeaseRecord

__all__ = ["Elector", "LeadershipLost", "LeaseTimes", "Role", "identity_of"]

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

NEVER_S: Final = float("-inf")
# Candidates that lost together must not come back together: up to 2.2 retry periods.
_JITTER: Final = 1.2
TRACE_S: Final = 0.001
"""A loop may wake a timer a trace before its time: no more than this is nothing left to wait."""


def identity_of(pod_name: str) -> str:
    """Who stands for election: a pod that restarts is another candidate than it was before."""
    return f"{pod_name}-{secrets.token_hex(8)}"


class LeadershipLost(Exception):
    """The lease could not be renewed in time, or somebody else holds it. The work was stopped."""


class Role(enum.Enum):
    """What an elector is now."""

    IDLE = "idle"
    CANDIDATE = "candidate"
    LEADER = "leader"
    STOPPING = "stopping"


class Elector:
    """Stands for one lease; `run` belongs to a task of the owner, and may be called again.

    `overrun` is called when the work did not stop before others may take the lease: nothing but
    the end of the process helps then.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        overrun: Callable[[], None] | None = None,
        stamp: Callable[[], str] = utc_stamp,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`stamp` gives the wall-clock time for the record, `draw` numbers from 0 to 1.

        Raises `ValueError` for an empty identity.
        """
        if not identity:
            raise ValueError("an elector needs an identity, such as the pod's name and a random")
        self._api = api
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self.times = times or LeaseTimes()
        self._overrun = overrun
        self._stamp = stamp
        self._draw = draw
        self._observation: Observation | None = None
        # When the last renewal that surely happened was sent; others see it later than that.
        self._renewed_s = NEVER_S
        # A write whose answer never came may have made us the holder.
        self._unsure = False
        # Somebody else was seen as the holder: no deadline counts any more.
        self._taken = False
        self.role = Role.IDLE

    def __repr__(self) -> str:
        return f"<Elector {self._namespace}/{self._name} {self.role.value} as {self.identity}>"

    @property
    def deadline_s(self) -> float:
        """Until when this process may act as the leader, on the loop's clock; any thread may ask.

        Moves on with each renewal; in the past while not leading.
        """
        return NEVER_S if self._taken else self._renewed_s + self.times.renew_deadline_s

    @property
    def holder(self) -> str:
        """Who held the lease when we last looked; empty for nobody."""
        return self._observation.record.holder if self._observation else ""

    def unhealthy(self, *, tolerance_s: float = 20.0) -> str:
        """What is wrong with a leader that neither renewed nor stopped; empty when nothing is."""
        if self.role is not Role.LEADER:
            return ""
        silent_s = _now_s() - self._renewed_s
        if silent_s <= self.times.lease_duration_s + tolerance_s:
            return ""
        return f"leading, but the lease was last renewed {silent_s:.0f} s ago"

    async def run(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Wait for the lease, then run `work`; returns when it returns.

        `work` is cancelled when the leadership ends or `run` is cancelled, and has ended before
        the lease is released. Raises `LeadershipLost`, and what `work` raises.
        """
        try:
            await self._acquire()
            await self._lead(work)
        finally:
            self._renewed_s = NEVER_S
            self.role = Role.IDLE
            if self._unsure or self.holder == self.identity:
                await _to_the_end(self._release(), name="lease release")

    async def _acquire(self) -> None:
        self.role, self._taken = Role.CANDIDATE, False
        _log.info("attempting to acquire lease", lease=self._lease, identity=self.identity)
        while True:
            if await self._try():
                break
            await asyncio.sleep(self.times.retry_period_s * (1 + _JITTER * self._draw()))
        self.role = Role.LEADER
        _log.info("successfully acquired lease", lease=self._lease, identity=self.identity)

    async def _lead(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        working = asyncio.create_task(work(), name="work of the leader")
        renewing = asyncio.create_task(self._renew(), name="lease renewal")
        try:
            await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
            lost = renewing.done() and not working.done()
        finally:
            self.role = Role.STOPPING
            await _to_the_end(self._stop(working, renewing), name="end of leadership")
        if renewing.done() and not renewing.cancelled() and (error := renewing.exception()):
            raise error
        if lost:
            if not working.cancelled() and (error := working.exception()):
                _log.error("work failed while it was stopped", lease=self._lease, exc_info=error)
            raise LeadershipLost(
                f"lease {self._lease}: not renewed within {self.times.renew_deadline_s:g} s, "
                f"or taken over; holder now {self.holder!r}"
            )
        working.result()

    async def _renew(self) -> None:
        """Returns when the leadership is lost, at the deadline at the latest."""
        next_s = self._renewed_s
        while True:
            next_s = max(next_s + self.times.retry_period_s, _now_s())
            await _sleep_until(min(next_s, self.deadline_s))
            if _now_s() >= self.deadline_s:
                _log.error("lease not renewed in time", lease=self._lease, identity=self.identity)
                return
            if not await self._try() and self.holder not in ("", self.identity):
                self._taken = True
                _log.error("lease is held by another", lease=self._lease, holder=self.holder)
                return

    async def _stop(self, working: asyncio.Task[None], renewing: asyncio.Task[None]) -> None:
        """End the work while the lease is still ours; keep it for as long as that takes."""
        working.cancel()
        while not working.done():
            expires_s = self._renewed_s + self.times.lease_duration_s
            if _now_s() >= expires_s:
                _log.critical("work outlives the lease", lease=self._lease)
                if self._overrun:
                    self._overrun()
                await asyncio.wait((working,))
            else:
                await asyncio.wait((working,), timeout=max(TRACE_S, expires_s - _now_s()))
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)

    async def _try(self) -> bool:
        """One attempt to get or to keep the lease; False where it failed, for whatever reason."""
        try:
            return await self._renew_as_remembered() or await self._get_and_take()
        except Conflict as error:
            _log.info("lease written by another", lease=self._lease, cause=str(error))
        except ApiError as error:
            _log.warning("lease not reached", lease=self._lease, cause=str(error))
        return False

    async def _renew_as_remembered(self) -> bool:
        """A leader need not read what it wrote itself."""
        seen = self._observation
        if self.role is Role.CANDIDATE or seen is None or seen.record.holder != self.identity:
            return False
        if not seen.is_valid(now_s=_now_s()):
            return False
        try:
            return await self._write(seen.body, self._claim(seen))
        except ApiError as error:
            _log.info("lease changed or not reached", lease=self._lease, cause=str(error))
            return False

    async def _get_and_take(self) -> bool:
        try:
            body = await self._call(self._api.get(LEASES, self._name, namespace=self._namespace))
        except NotFound:
            return await self._write(None, self._claim(None))
        seen = self._observation = observe(self._observation, body, now_s=_now_s())
        if seen.is_held_by_other(self.identity, now_s=_now_s()):
            return False
        return await self._write(body, self._claim(seen))

    def _claim(self, seen: Observation | None) -> LeaseRecord:
        return claim(seen, identity=self.identity, times=self.times, now=self._stamp())

    async def _write(self, body: Body | None, record: LeaseRecord) -> bool:
        """Create or replace the lease. Raises `ApiError`; without an answer it may be ours."""
        sent_s = _now_s()
        wanted = lease_body(body, record, namespace=self._namespace, name=self._name)
        if body is None:
            call = self._api.create(LEASES, wanted, namespace=self._namespace)
        else:
            call = self._api.update(LEASES, wanted)
        before, self._unsure = self._unsure, True
        try:
            written = await self._call(call)
        except ApiError as error:
            # A server in trouble may have written before it failed to say so.
            self._unsure = before or error.status == 0 or error.status >= 500
            raise
        self._unsure = False
        self._observation = observe(self._observation, written, now_s=_now_s())
        self._renewed_s = sent_s
        return True

    async def _call(self, call: Awaitable[_T]) -> _T:
        """A hung request must not cost more than half of the deadline, nor outlive it."""
        limit_s = self.times.request_timeout_s
        if self.role is not Role.CANDIDATE and self.deadline_s > _now_s():
            limit_s = min(limit_s, self.deadline_s - _now_s())
        try:
            async with asyncio.timeout(limit_s):
                return await call
        except TimeoutError as error:
            raise Unreachable(f"lease {self._lease}: no answer within {limit_s:.1f} s") from error

    async def _release(self) -> None:
        """Let the next leader start at once. Fails quietly: the lease runs out by itself."""
        try:
            async with asyncio.timeout(self.times.renew_deadline_s):
                while not await self._released():
                    pass
        except (ApiError, TimeoutError) as error:
            _log.warning("lease not released", lease=self._lease, cause=str(error))

    async def _released(self) -> bool:
        try:
            body = await self._call(self._api.get(LEASES, self._name, namespace=self._namespace))
        except NotFound:
            return True
        seen = self._observation = observe(self._observation, body, now_s=_now_s())
        if seen.record.holder == self.identity:
            wanted = release(seen.record, now=self._stamp())
            free = lease_body(body, wanted, namespace=self._namespace, name=self._name)
            try:
                body = await self._call(self._api.update(LEASES, free))
            except Conflict:
                return False
            self._observation = observe(self._observation, body, now_s=_now_s())
            _log.info("lease released", lease=self._lease, identity=self.identity)
        self._unsure = False
        return True

    @property
    def _lease(self) -> str:
        return f"{self._namespace}/{self._name}"


async def _to_the_end(step: Coroutine[object, object, None], *, name: str) -> None:
    """Await a step that must not be left half done; a cancellation is raised after it."""
    task = asyncio.create_task(step, name=name)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


async def _sleep_until(when_s: float) -> None:
    """Not a trace shorter, or whoever compares with the clock afterwards would go round again."""
    await asyncio.sleep(0)  # lets others run also when it is late already
    while (left_s := when_s - _now_s()) > 0:  # noqa: ASYNC110 - nobody tells of time
        await asyncio.sleep(max(TRACE_S, left_s))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
