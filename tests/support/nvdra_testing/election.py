"""Candidates for one lease, each with its own line to the API server, which a test can spoil."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from nvdra_kube.errors import NotFound, Unreachable
from nvdra_kube.lease import Elector, LeadershipLost
from nvdra_kube.lease_record import LeaseRecord
from nvdra_kube.resources import LEASES
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_testing.kube_stub import KubeStub

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from nvdra_kube.api import Body, Resource

_TOO_MANY: Final = 10_000

Line: TypeAlias = Literal["good", "hangs", "refuses", "loses answers", "hangs after writes"]


class Wire(KubeStub):
    """A line to the server. `asked` is what was asked when."""

    def __init__(self, api: LocalApi) -> None:
        self._api = api
        self.line: Line = "good"
        self.asked: list[tuple[str, float]] = []

    async def get(self, resource: Resource, name: str, **extra: Any) -> Body:
        return await self._send("get", self._api.get(resource, name, **extra))

    async def create(self, resource: Resource, body: Body, **extra: Any) -> Body:
        return await self._send("create", self._api.create(resource, body, **extra))

    async def update(self, resource: Resource, body: Body, **extra: Any) -> Body:
        return await self._send("update", self._api.update(resource, body, **extra))

    async def _send(self, verb: str, call: Awaitable[Body]) -> Body:
        self.asked.append((verb, now_s()))
        line = self.line
        try:
            if len(self.asked) > _TOO_MANY:  # in fake time nothing else would end it
                raise RuntimeError("the elector asks without a pause")
            if line == "refuses":
                raise Unreachable("connection refused")
            if line == "hangs":
                await asyncio.Event().wait()
            answer = await call
        finally:
            if asyncio.iscoroutine(call):
                call.close()
        if verb != "get" and line == "loses answers":
            raise Unreachable("connection reset")
        if verb != "get" and line == "hangs after writes":
            await asyncio.Event().wait()
        return answer


@dataclass
class Worker:
    """Records when it worked; `slow_s` is how long it takes to stop."""

    name: str
    wire: Wire
    elector: Elector
    slow_s: float = 0.0
    spans: list[list[float]] = field(default_factory=list)
    overruns: int = 0
    lost: int = 0
    task: asyncio.Task[None] | None = None

    @property
    def working(self) -> bool:
        return bool(self.spans) and len(self.spans[-1]) == 1

    async def work(self) -> None:
        self.spans.append([now_s()])
        try:
            await asyncio.Event().wait()
        finally:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(self.slow_s)
            self.spans[-1].append(now_s())

    def start(self) -> None:
        self.task = asyncio.create_task(self._stand(), name=self.name)

    async def stop(self) -> None:
        assert self.task
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _stand(self) -> None:
        while True:
            try:
                await self.elector.run(self.work)
            except LeadershipLost:
                self.lost += 1


class Election:
    """A server and its candidates."""

    def __init__(self) -> None:
        self.api = LocalApi(ClusterStore())
        self.workers: list[Worker] = []

    def candidate(
        self, name: str, *, slow_s: float = 0.0, start: bool = True, **options: Any
    ) -> Worker:
        wire = Wire(self.api)

        def overrun() -> None:
            worker.overruns += 1

        elector = Elector(
            wire,
            namespace="default",
            name="controller",
            identity=name,
            overrun=overrun,
            draw=lambda: 0.5,
            **options,
        )
        worker = Worker(name, wire, elector, slow_s)
        self.workers.append(worker)
        if start:
            worker.start()
        return worker

    async def record(self) -> LeaseRecord:
        return LeaseRecord.of(await self.lease())

    async def lease(self) -> Body:
        return await self.api.get(LEASES, "controller", namespace="default")

    async def edit(self, **spec: Any) -> None:
        """Write the lease by hand."""
        try:
            body = await self.lease()
        except NotFound:
            meta = {"name": "controller", "namespace": "default"}
            await self.api.create(LEASES, {"metadata": meta, "spec": spec})
            return
        await self.api.update(LEASES, {**body, "spec": {**body["spec"], **spec}})

    async def close(self) -> None:
        for worker in self.workers:
            if worker.task:
                worker.wire.line = "good"
                await worker.stop()

    def never_two_at_work(self) -> bool:
        spans = sorted(
            (span[0], span[1] if len(span) > 1 else now_s())
            for worker in self.workers
            for span in worker.spans
        )
        return all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def now_s() -> float:
    return asyncio.get_running_loop().time()
