"""The life of one Pod on the node: claims, containers, status, and the way out.

The order is the kubelet's: claims are prepared before the first container, given back after the
last one has ended, and only then does the Pod's phase become terminal or the Pod disappear.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, Conflict, NotFound
from nvdra_kube.resources import PODS
from nvdra_sim.cluster.kubelet.addresses import next_address
from nvdra_sim.cluster.kubelet.dra import PrepareError, UnprepareError
from nvdra_sim.cluster.kubelet.pod_containers import PodContainers
from nvdra_sim.cluster.kubelet.pod_spec import empty_dirs
from nvdra_sim.cluster.kubelet.pod_status import (
    Phase,
    current_phase,
    final_phase,
    pod_status,
    records_of,
    timestamp,
)

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_kube.api import Body, KubeApi
    from nvdra_sim.cluster.kubelet.dra import PodResources
    from nvdra_sim.cluster.kubelet.pod_containers import ContainerStarter
    from nvdra_sim.cluster.kubelet.reporter import Reporter

log = structlog.get_logger(__name__)

_TERMINAL = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTimes:
    """Seconds. The kubelet's own values are 60 to 90, 10 to 15, and 10 to 300 with the first
    restart at once; shorter ones here, so that a demonstration need not wait.

    `settle_s` is what a container gets after its start before it may see a SIGTERM: without it a
    Pod deleted at once would sit out its grace period, its shell not having set its trap yet.
    """

    prepare_retry_s: float = 5.0
    unprepare_retry_s: float = 5.0
    restart_first_s: float = 1.0
    restart_limit_s: float = 300.0
    settle_s: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PodServices:
    """What every Pod of the node uses."""

    api: KubeApi
    resources: PodResources
    starter: ContainerStarter
    reporter: Reporter
    times: PodTimes


class PodWorker:
    """One Pod from its arrival to its disappearance. `run` belongs to a task of the owner."""

    def __init__(self, pod: Body, services: PodServices, *, directory: Path) -> None:
        self._pod = pod
        self._services = services
        self._directory = directory
        self._records = records_of(pod)
        self._start_time = (pod.get("status") or {}).get("startTime") or timestamp()
        self._containers = PodContainers(
            records=self._records,
            services=services,
            directory=directory,
            pod=self._addressed,
            changed=self._report,
        )
        self._address = (pod.get("status") or {}).get("podIP") or ""
        self._changed = asyncio.Event()
        self._deleting = asyncio.Event()
        self._gone = asyncio.Event()
        self._reporting = asyncio.Lock()
        self._reported: Body | None = None
        self._note(pod)

    def __repr__(self) -> str:
        meta = self._pod["metadata"]
        return f"<PodWorker {meta['namespace']}/{meta['name']} {current_phase(self._records)}>"

    def update(self, pod: Body) -> None:
        """The Pod as the API has it now."""
        old, self._pod = self._pod, pod
        if _what_matters(old) != _what_matters(pod):
            self._changed.set()
        self._note(pod)

    def vanish(self) -> None:
        """The Pod is no longer in the API: end it without ceremony."""
        self._gone.set()
        self._deleting.set()
        self._changed.set()

    def _note(self, pod: Body) -> None:
        if pod["metadata"].get("deletionTimestamp"):
            self._deleting.set()

    async def run(self) -> None:
        """Returns when nothing of the Pod is left on the node."""
        try:
            if not self._ended_before():
                await self._live_until_deleted()
            await self._unprepare()
            await self._conclude()
        finally:
            await self._containers.kill()
            await asyncio.to_thread(shutil.rmtree, self._directory / "volumes", ignore_errors=True)

    def _ended_before(self) -> bool:
        return (self._pod.get("status") or {}).get("phase") in _TERMINAL

    async def _live_until_deleted(self) -> None:
        living = asyncio.create_task(self._live(), name=f"{self!r} lives")
        deleted = asyncio.create_task(self._deleting.wait(), name=f"{self!r} deleted")
        try:
            await asyncio.wait((living, deleted), return_when=asyncio.FIRST_COMPLETED)
            if not living.done():
                living.cancel()
                await asyncio.wait((living,))
                await self._containers.stop(grace_s=self._grace_s(), hurry=self._gone)
        finally:
            for task in (living, deleted):
                task.cancel()
            await asyncio.gather(living, deleted, return_exceptions=True)
        if not living.cancelled():
            living.result()

    async def _live(self) -> None:
        await self._report()
        await asyncio.to_thread(self._make_volumes)
        await self._prepare()
        self._address = self._address or next_address()
        await self._report()
        await self._containers.run()

    def _addressed(self) -> Body:
        """The Pod with its address, which the API may not have yet."""
        status = {**(self._pod.get("status") or {}), "podIP": self._address}
        return {**self._pod, "status": status}

    def _make_volumes(self) -> None:
        for name in empty_dirs(self._pod):
            (self._directory / "volumes" / name).mkdir(parents=True, exist_ok=True)

    async def _prepare(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._services.resources.prepare(self._pod)
            except PrepareError as exc:
                text = f"Failed to prepare dynamic resources: {exc}"
                await self._warn("FailedPrepareDynamicResources", text)
            else:
                return
            # Like the regular resync of the kubelet: an update of the Pod ends the wait.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._services.times.prepare_retry_s):
                    await self._changed.wait()

    async def _unprepare(self) -> None:
        """Until it succeeds: a Pod whose claims are not given back stays."""
        while True:
            try:
                await self._services.resources.unprepare(self._pod)
            except UnprepareError as exc:
                await self._warn("FailedUnprepareDynamicResources", str(exc))
                await asyncio.sleep(self._services.times.unprepare_retry_s)
            else:
                return

    async def _warn(self, reason: str, note: str) -> None:
        await self._services.reporter.event(self._pod, type="Warning", reason=reason, note=note)

    async def _conclude(self) -> None:
        if not self._gone.is_set() and not self._ended_before():
            await self._report(phase=final_phase(self._records))
        await self._deleting.wait()
        while not self._gone.is_set():
            if await self._delete():
                return
            await asyncio.sleep(self._services.times.unprepare_retry_s)

    async def _delete(self) -> bool:
        meta = self._pod["metadata"]
        try:
            await self._services.api.delete(
                PODS,
                meta["name"],
                namespace=meta["namespace"],
                uid=meta["uid"],
                grace_period_s=0,
            )
        except NotFound:
            return True
        except Conflict:
            return await self._is_replaced()
        except ApiError as exc:
            log.warning("pod not removed", pod=meta["name"], cause=exc.message)
            return False
        return True

    async def _is_replaced(self) -> bool:
        """After a conflict: whether another Pod has the name by now. It may be a mere collision."""
        meta = self._pod["metadata"]
        try:
            now = await self._services.api.get(PODS, meta["name"], namespace=meta["namespace"])
        except NotFound:
            return True
        except ApiError:
            return False
        return bool(now["metadata"]["uid"] != meta["uid"])

    def _grace_s(self) -> float:
        meta, spec = self._pod["metadata"], self._pod["spec"]
        asked = meta.get("deletionGracePeriodSeconds")
        grace = spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked
        return float(grace)

    async def _report(self, *, phase: Phase | None = None) -> None:
        """Write the status, if it differs from what was written last; repeated until it is there.

        A write that waits for its turn carries the newest state, so states may be skipped.
        """
        async with self._reporting:
            status = pod_status(
                self._records,
                phase=phase or current_phase(self._records),
                start_time=self._start_time,
                conditions=(self._pod.get("status") or {}).get("conditions") or [],
                address=self._address,
            )
            if status == self._reported or self._gone.is_set():
                return
            await self._write_until_done(status)
            self._reported = status

    async def _write_until_done(self, status: Body) -> None:
        backoff = Backoff(first_s=0.1, limit_s=5.0)
        while True:
            if await self._write_status(status, backoff):
                return
            await asyncio.sleep(backoff.failed())

    async def _write_status(self, status: Body, backoff: Backoff) -> bool:
        meta = self._pod["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": status}
        try:
            await self._services.api.patch(
                PODS, meta["name"], patch, namespace=meta["namespace"], subresource="status"
            )
        except NotFound:
            return True
        except Conflict:
            return await self._is_replaced()
        except ApiError as exc:
            log.warning(
                "pod status not written",
                pod=meta["name"], cause=exc.message, attempt=backoff.failures + 1,
            )  # fmt: skip
            return False
        return True


def _what_matters(pod: Body) -> tuple[object, ...]:
    """Changes of the status that the kubelet itself wrote are no reason for another attempt."""
    meta, status = pod["metadata"], pod.get("status") or {}
    return (
        pod["spec"],
        meta.get("labels"),
        meta.get("annotations"),
        meta.get("deletionTimestamp"),
        status.get("resourceClaimStatuses"),
        status.get("extendedResourceClaimStatus"),
    )
