"""The containers of one Pod: init containers in order, main ones together, restarts, the end."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nvdra_kube.backoff import Backoff
from nvdra_sim.cluster.kubelet.cdi_spec import CdiError, Mount
from nvdra_sim.cluster.kubelet.container import ContainerSpec, StartError
from nvdra_sim.cluster.kubelet.images import ImageError, InvalidImageName
from nvdra_sim.cluster.kubelet.pod_spec import (
    ContainerConfigError,
    command,
    environment,
    host_name,
    volume_mounts,
)
from nvdra_sim.cluster.kubelet.pod_status import (
    START_ERROR,
    ContainerRecord,
    Running,
    Terminated,
    Waiting,
    should_restart,
    timestamp,
)
from nvdra_sim.cluster.kubelet.probes import is_probed, keep_probed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.kubelet.cdi import CdiRegistry
    from nvdra_sim.cluster.kubelet.container import ContainerRuntime, RunningContainer
    from nvdra_sim.cluster.kubelet.images import ImageStore
    from nvdra_sim.cluster.kubelet.pod_worker import PodServices


_FIRST = asyncio.FIRST_COMPLETED
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class InitFailed(Exception):
    """An init container failed for good: the Pod has failed."""


class NotStarted(Exception):
    """A container could not be created; it is tried again. `reason` is the waiting reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ContainerStarter:
    """Turns a container of a Pod into a running one: image, CDI devices, runtime."""

    runtime: ContainerRuntime
    images: ImageStore
    cdi: CdiRegistry
    boot_id: Path | None = None

    async def start(
        self, pod: Body, container: Body, *, cdi_ids: tuple[str, ...], directory: Path, attempt: int
    ) -> RunningContainer:
        """Raises `NotStarted` before, `StartError` at the start of the command."""
        spec = await asyncio.to_thread(
            self._spec, pod, container, cdi_ids=cdi_ids, directory=directory, attempt=attempt
        )
        return await self.runtime.start(spec)

    def _spec(
        self, pod: Body, container: Body, *, cdi_ids: tuple[str, ...], directory: Path, attempt: int
    ) -> ContainerSpec:
        name = container["name"]
        try:
            env = environment(pod, container)
            image = self.images.image(container.get("image", ""))
            return ContainerSpec(
                name=name,
                image=image,
                bundle=directory / f"{name}.{attempt}",
                log=log_path(directory, name, attempt),
                args=command(container, env),
                env=env,
                cwd=container.get("workingDir") or "/",
                hostname=host_name(pod),
                volumes=(
                    *image.content.mounts,
                    *self._of_the_boot(),
                    *volume_mounts(pod, container, directory / "volumes"),
                ),
                edits=self.cdi.resolve(cdi_ids),
            )
        except ContainerConfigError as exc:
            raise NotStarted("CreateContainerConfigError", str(exc)) from exc
        except InvalidImageName as exc:
            raise NotStarted("InvalidImageName", str(exc)) from exc
        except ImageError as exc:
            raise NotStarted("ErrImagePull", str(exc)) from exc
        except CdiError as exc:
            raise NotStarted("CreateContainerError", f"CDI device injection failed: {exc}") from exc

    def _of_the_boot(self) -> tuple[Mount, ...]:
        if self.boot_id is None:
            return ()
        return (Mount(host_path=str(self.boot_id), container_path=_BOOT_ID, options=["ro"]),)


def log_path(directory: Path, container: str, attempt: int) -> Path:
    return directory / "logs" / container / f"{attempt}.log"


@dataclass(slots=True)
class PodContainers:
    """`changed` is awaited after each change of a record."""

    records: list[ContainerRecord]
    services: PodServices
    directory: Path
    pod: Callable[[], Body]
    changed: Callable[[], Awaitable[None]]
    _running: dict[str, RunningContainer] = field(init=False, default_factory=dict)
    _started_s: dict[str, float] = field(init=False, default_factory=dict)

    async def run(self) -> None:
        """Returns when every container has ended for good. Cancelled, containers run on."""
        try:
            for record in self.records:
                if record.init:
                    await self._supervise(record)
        except InitFailed:
            return
        mains = [record for record in self.records if not record.init]
        async with asyncio.TaskGroup() as group:
            for record in mains:
                group.create_task(self._supervise(record), name=f"container {record.name}")

    async def stop(self, *, grace_s: float, hurry: asyncio.Event) -> None:
        """SIGTERM, then SIGKILL after the grace period or when `hurry` is set."""
        async with asyncio.TaskGroup() as group:
            for name in list(self._running):
                record = next(record for record in self.records if record.name == name)
                group.create_task(self._stop(record, grace_s, hurry), name=f"stop {name}")

    async def kill(self) -> None:
        """End whatever still runs, at once."""
        for container in self._running.values():
            container.kill()
        for container in self._running.values():
            await container.wait()
        self._running.clear()

    async def _supervise(self, record: ContainerRecord) -> None:
        """One container until it has ended for good."""
        times = self.services.times
        backoff = Backoff(first_s=times.restart_first_s, limit_s=times.restart_limit_s)
        policy = self.pod()["spec"].get("restartPolicy", "Always")
        while True:
            code = await self._run_once(record)
            if not should_restart(policy, code, init=record.init):
                await self.changed()
                if record.init and code != 0:
                    raise InitFailed(record.name)
                return
            assert isinstance(record.state, Terminated)
            record.last = record.state
            record.state = Waiting("CrashLoopBackOff", f"restarting failed container {record.name}")
            await self.changed()
            await asyncio.sleep(backoff.failed())
            record.restarts += 1

    async def _run_once(self, record: ContainerRecord) -> int:
        """Start the container and wait for its end; its exit code, 128 when it never ran."""
        begun = timestamp()
        try:
            container = await self._start(record)
        except StartError as exc:
            record.state = Terminated(128, START_ERROR, begun, timestamp(), str(exc))
            await self._warn(record, str(exc))
            return 128
        self._running[record.name] = container
        self._started_s[record.name] = asyncio.get_running_loop().time()
        record.state = Running(timestamp())
        entry = self._entry(self.pod(), record)
        record.passes = not is_probed(entry)
        await self.changed()
        probing = asyncio.create_task(self._probe(record, entry), name=f"probes of {record.name}")
        try:
            return self._ended(record, await container.wait())
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _probe(self, record: ContainerRecord, entry: Body) -> None:
        async def report(ready: bool) -> None:
            record.passes = ready
            await self.changed()

        if is_probed(entry):
            address = (self.pod().get("status") or {}).get("podIP", "")
            await keep_probed(entry, address=address, report=report)

    async def _start(self, record: ContainerRecord) -> RunningContainer:
        """What cannot even be created is tried again and again, whatever the restart policy."""
        while True:
            pod = self.pod()
            entry = self._entry(pod, record)
            try:
                return await self.services.starter.start(
                    pod,
                    entry,
                    cdi_ids=self.services.resources.cdi_ids(pod, entry),
                    directory=self.directory,
                    attempt=record.restarts,
                )
            except NotStarted as exc:
                record.state = Waiting(exc.reason, str(exc))
                await self._warn(record, str(exc))
                await self.changed()
                await asyncio.sleep(self.services.times.prepare_retry_s)

    async def _stop(self, record: ContainerRecord, grace_s: float, hurry: asyncio.Event) -> None:
        container = self._running[record.name]
        settled_s = self._started_s[record.name] + self.services.times.settle_s
        settling_s = settled_s - asyncio.get_running_loop().time()
        ended = asyncio.create_task(container.wait(), name=f"end of {record.name}")
        rush = asyncio.create_task(hurry.wait(), name=f"hurry {record.name}")
        try:
            if settling_s > 0 and grace_s > 0:
                await asyncio.wait((ended, rush), timeout=settling_s, return_when=_FIRST)
            container.terminate()
            await asyncio.wait((ended, rush), timeout=grace_s, return_when=_FIRST)
            if not ended.done():
                container.kill()
            self._ended(record, await ended)
        finally:
            rush.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await rush

    def _ended(self, record: ContainerRecord, code: int) -> int:
        self._running.pop(record.name, None)
        started = record.state.started_at if isinstance(record.state, Running) else timestamp()
        reason = "Completed" if code == 0 else "Error"
        record.state = Terminated(code, reason, started, timestamp())
        return code

    async def _warn(self, record: ContainerRecord, text: str) -> None:
        note = f"container {record.name}: {text}"
        await self.services.reporter.event(self.pod(), type="Warning", reason="Failed", note=note)

    def _entry(self, pod: Body, record: ContainerRecord) -> Body:
        field_name = "initContainers" if record.init else "containers"
        entry: Body = next(e for e in pod["spec"][field_name] if e["name"] == record.name)
        return entry
