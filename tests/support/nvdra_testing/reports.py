"""A claim of the embedded API server, reported on; Events are kept in a list."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nvdra_kube.resources import RESOURCE_CLAIMS
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.observer import Attempt
from nvdra_nodeagent.errors import AgentError, NodeFault
from nvdra_nodeagent.reporting.reporter import ClaimReporter
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_testing.agent import until
from nvdra_testing.claims import DRIVER, NODE, a_claim_body, a_ref, a_result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nvdra_kube.api import Body
    from nvdra_kube.occurrences import Severity
    from nvdra_nodeagent.reporting.report import ConditionPolicy


def an_error(text: str = "no space") -> AgentError:
    return NodeFault("DiskFull", f"error preparing devices for claim: {text}", hint="free space")


@dataclass
class EventList:
    """`Recorder` that remembers: type, reason, `Kind/name` and note."""

    events: list[tuple[str, str, str, str]] = field(default_factory=list)

    async def event(self, regarding: Body, *, type: Severity, reason: str, note: str) -> None:
        about = f"{regarding['kind']}/{regarding['metadata']['name']}"
        self.events.append((type, reason, about, note))

    def short(self) -> list[tuple[str, str]]:
        """Reason and object, in order."""
        return [(reason, about) for _, reason, about, _ in self.events]


class Desk:
    """A reporter with its API server and its Events."""

    def __init__(self, *, conditions: ConditionPolicy = "failures") -> None:
        self.store = ClusterStore()
        self.api = LocalApi(self.store)
        self.recorder = EventList()
        self.lost: list[str] = []
        self.reporter = ClaimReporter(
            self.api,
            driver=DRIVER,
            node=NODE,
            recorder=self.recorder,
            conditions=conditions,
            on_lost=self.lost.append,
        )

    async def claim(
        self, *results: Body | str, name: str = "claim", pods: Sequence[str] = ("p1",)
    ) -> ClaimRef:
        """Allocated, and reserved for these pods."""
        body = a_claim_body(a_ref(name), *(results or ("gpu-0",)))
        request = {"name": "gpu", "exactly": {"deviceClassName": DRIVER}}
        made = await self.api.create(
            RESOURCE_CLAIMS, {**body, "spec": {"devices": {"requests": [request]}}, "status": {}}
        )
        consumers = [{"resource": "pods", "name": pod, "uid": f"uid-{pod}"} for pod in pods]
        status = {**body["status"], "reservedFor": consumers}
        await self.api.update(RESOURCE_CLAIMS, {**made, "status": status}, subresource="status")
        return ClaimRef(made["metadata"]["namespace"], name, made["metadata"]["uid"])

    async def get(self, ref: ClaimRef) -> Body:
        return await self.api.get(RESOURCE_CLAIMS, ref.name, namespace=ref.namespace)

    async def ready(self, ref: ClaimRef) -> dict[str, tuple[str, str]]:
        """Status and reason of the condition by device; devices without one are left out."""
        entries = (await self.get(ref))["status"].get("devices", ())
        return {
            entry["device"]: (condition["status"], condition["reason"])
            for entry in entries
            if entry["driver"] == DRIVER
            for condition in entry["conditions"]
            if condition["type"] == "Ready"
        }

    async def version(self, ref: ClaimRef) -> str:
        return str((await self.get(ref))["metadata"]["resourceVersion"])

    def fail(self, ref: ClaimRef, error: AgentError | None = None, **more: Any) -> None:
        operation = more.pop("operation", "prepare")
        self.reporter.failed(Attempt(operation, ref, 1.0), error=error or an_error())

    def finish(self, ref: ClaimRef, operation: Any = "prepare") -> None:
        self.reporter.finished(Attempt(operation, ref, 0.1), devices=())

    async def see(self, ref: ClaimRef) -> None:
        """As a prepare does, which has just read the claim."""
        self.reporter.seen(ref, await self.get(ref))

    async def settle(self) -> None:
        """Let the reporter write all that waits."""
        async with self.running():
            await until(lambda: not self.reporter.waiting)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reporter.run(), name="reporter")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def a_foreign_entry(**more: Any) -> Body:
    """What another driver says of its device, which is allocated too."""
    return {"driver": "nic.example.com", "pool": NODE, "device": "nic-0", **more}


def a_foreign_result() -> Body:
    return {**a_result("nic-0"), "driver": "nic.example.com"}
