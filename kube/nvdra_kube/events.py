"""Kubernetes Events about what happened to objects, as `kubectl describe` shows them.

Written as core/v1 Events with counts, which every version of kubectl prints.
"""

from __future__ import annotations

import asyncio
import secrets
from contextvars import Context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, NotFound, ServerError, TooManyRequests, Unreachable
from nvdra_kube.occurrences import Occurrence, Occurrences, Record, Severity
from nvdra_kube.resources import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import Body, KubeApi

__all__ = ["EventRecorder"]

_log = structlog.get_logger(__name__)

_MAX_WAITING: Final = 500
_ATTEMPTS: Final = 8
_MAX_NAME: Final = 253


class EventRecorder:
    """Records Events in the background.

    Its task lives only while something waits to be written; it is named, and owned by the
    recorder. Leaving the context, or `aclose`, gives it a moment to finish.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        component: str,
        instance: str,
        on_dropped: Callable[[], None] = lambda: None,
    ) -> None:
        """`component` is who says it (a program or driver), `instance` which one (node, pod).

        `on_dropped` is called for each Event that nobody will see.
        """
        self._api = api
        self._component = component
        self._instance = instance
        self._occurrences = Occurrences()
        self._waiting: dict[Occurrence, Record] = {}
        self._writer: asyncio.Task[None] | None = None
        self._on_dropped = on_dropped
        self.dropped = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def event(self, regarding: Body, *, type: Severity, reason: str, note: str) -> None:
        """Record that `reason` (CamelCase) happened to an object.

        Returns at once and never raises. Repeats are counted; an object that has too many Events
        gets no more for a while.
        """
        try:
            occurrence = Occurrence.of(regarding, type=type, reason=reason, note=note)
        except (KeyError, TypeError, AttributeError):
            _log.error("event about something that is no object", reason=reason, note=note)
            return
        record = self._occurrences.note(occurrence, now_s=_now_s(), stamp=_stamp())
        full = len(self._waiting) >= _MAX_WAITING and occurrence not in self._waiting
        if record is None or full:
            self._drop()
            _log.debug("event dropped", reason=reason, note=note, dropped=self.dropped)
            return
        self._waiting[occurrence] = record
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(
                self._write_all(), name="event recorder", context=Context()
            )

    def _drop(self) -> None:
        self.dropped += 1
        self._on_dropped()

    async def aclose(self, *, timeout_s: float = 2.0) -> None:
        """Write what waits, but not for longer than `timeout_s`."""
        if self._writer is None:
            return
        await asyncio.wait([self._writer], timeout=timeout_s)
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        for _ in range(len(self._waiting)):
            self._drop()
        self._waiting.clear()

    async def _write_all(self) -> None:
        while self._waiting:
            record = self._waiting.pop(next(iter(self._waiting)))
            try:
                await self._write_patiently(record)
            except Exception as error:
                self._drop()
                _log.warning(
                    "event not written",
                    object=f"{record.occurrence.kind} {record.occurrence.name}",
                    reason=record.occurrence.reason,
                    error=str(error),
                    exc_info=None if isinstance(error, ApiError) else error,
                )

    async def _write_patiently(self, record: Record) -> None:
        """Try again where the server is in trouble, not where it says no."""
        backoff = Backoff(first_s=0.5, limit_s=30.0)
        while True:
            try:
                return await self._write(record)
            except (Unreachable, ServerError, TooManyRequests) as error:
                if backoff.failures + 1 >= _ATTEMPTS:
                    raise
                await asyncio.sleep(backoff.failed(at_least_s=error.retry_after_s or 0.0))

    async def _write(self, record: Record) -> None:
        if record.event_name:
            try:
                await self._count(record)
            except NotFound:
                # The API server forgets Events after an hour.
                record.event_name = ""
        if not record.event_name:
            body = self._body(record)
            await self._api.create(EVENTS, body, namespace=body["metadata"]["namespace"])
            record.event_name = body["metadata"]["name"]

    async def _count(self, record: Record) -> None:
        await self._api.patch(
            EVENTS,
            record.event_name,
            {"count": record.count, "lastTimestamp": record.last},
            namespace=record.occurrence.namespace or "default",
        )

    def _body(self, record: Record) -> Body:
        about = record.occurrence
        # Events about cluster-scoped objects live in "default"; that is where kubectl looks.
        namespace = about.namespace or "default"
        reference = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": _event_name(about.name), "namespace": namespace},
            "involvedObject": {name: value for name, value in reference.items() if value},
            "type": about.type,
            "reason": about.reason,
            "message": about.note,
            "count": record.count,
            "firstTimestamp": record.first,
            "lastTimestamp": record.last,
            "source": {"component": self._component, "host": self._instance},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }


def _event_name(about: str) -> str:
    suffix = f".{secrets.token_hex(8)}"
    return about[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _now_s() -> float:
    return asyncio.get_running_loop().time()
