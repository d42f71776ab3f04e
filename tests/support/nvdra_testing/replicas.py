"""Replicas of the controller as installed, with Kopf, each with its own line to one store."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from nvdra_api.names import NAMESPACE
from nvdra_kube.access import direct_access
from nvdra_kube.lease import Role
from nvdra_kube.session import KubeSession
from nvdra_operator.kopf_lifecycle import KopfLifecycle
from nvdra_operator.metrics import ControllerMetrics
from nvdra_operator.options import parse_options
from nvdra_operator.program import Program
from nvdra_testing.tapped_server import TappedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from nvdra_kube.access import Access
    from nvdra_operator.options import Options
    from nvdra_sim.cluster.apiserver import ClusterStore
    from nvdra_testing.tapped_server import Arrival

RENEW_DEADLINE_S: Final = 4.0
ELECTION: Final = (
    "--leader-election-enabled=true",
    "--leader-election-lease-duration=6s",
    f"--leader-election-renew-deadline={RENEW_DEADLINE_S:g}s",
    "--leader-election-retry-period=200ms",
)


@dataclass
class Replica:
    """A program; what it wrote is on its line."""

    name: str
    line: TappedServer
    program: Program
    metrics: ControllerMetrics
    stop: asyncio.Event
    task: asyncio.Task[None]

    @property
    def leads(self) -> bool:
        return bool(self.program.elector and self.program.elector.role is Role.LEADER)

    def work(self) -> list[Arrival]:
        """Its writes but for those of the election."""
        return [one for one in self.line.writes if one.resource != "leases"]

    def late(self, allowance_s: float) -> list[str]:
        """Writes without a lease that was renewed within the deadline, as the server saw it.

        `allowance_s` is how long a write may have been on its way.
        """
        assert self.program.elector
        until_s, found = float("-inf"), []
        for one in self.line.arrived:
            if one.resource == "leases" and one.writes and one.status in (200, 201):
                holds = one.body["spec"]["holderIdentity"] == self.program.elector.identity
                until_s = one.at_s + RENEW_DEADLINE_S if holds else float("-inf")
            elif one.writes and one.resource != "leases" and one.at_s > until_s + allowance_s:
                found.append(f"{self.name}: {one}, {one.at_s - until_s:.2f} s late")
        return found

    async def end(self) -> None:
        self.stop.set()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def a_replica(
    store: ClusterStore, name: str = "controller-0", *flags: str
) -> AsyncIterator[Replica]:
    """A running replica; with `ELECTION` among the flags it stands for the lease."""
    metrics = ControllerMetrics()
    overruns: list[str] = []
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(TappedServer(store))
        api, lease_api = [
            await stack.enter_async_context(_session(line, metrics)) for _ in range(2)
        ]
        program = Program(
            _options(name, *flags),
            api=api,
            lease_api=lease_api,
            metrics=metrics,
            lifecycle=lambda _, domains, gate: KopfLifecycle(
                domains, access=partial(_access, line), gate=gate, observe=metrics.api_called
            ),
            overrun=lambda: overruns.append(name),
        )
        stop = asyncio.Event()
        task = asyncio.create_task(program.run(stop), name=name)
        replica = Replica(name, line, program, metrics, stop, task)
        try:
            yield replica
        finally:
            await replica.end()
        assert overruns == []


def _options(name: str, *flags: str) -> Options:
    required = [
        f"--pod-name={name}",
        "--image-name=nvdra:test",
        "--log-verbosity-cd-daemon=4",
        f"--namespace={NAMESPACE}",
    ]
    return parse_options([*required, *flags], environ={}, version="test")


def _session(
    line: TappedServer, metrics: ControllerMetrics
) -> AbstractAsyncContextManager[KubeSession]:
    return KubeSession.connect(
        line.url,
        ca_pem=line.ca_pem,
        token=line.token,
        timeout_s=10.0,
        observe=metrics.api_called,
    )


async def _access(line: TappedServer) -> Access:
    return await asyncio.to_thread(direct_access, line.url, ca_pem=line.ca_pem, token=line.token)


@asynccontextmanager
async def replicas(store: ClusterStore, count: int) -> AsyncIterator[list[Replica]]:
    """Several that stand for one lease."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(a_replica(store, f"controller-{number}", *ELECTION))
            for number in range(count)
        ]
