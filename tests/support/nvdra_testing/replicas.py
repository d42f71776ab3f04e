"""Replicas of the controller as installed, with Kopf, each with its own line to one store."""

from __future__ import annotations

import asyncio
import itertools
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
from nvdra_testing.lived_time import LivedTime
from nvdra_testing.tapped_server import TappedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from nvdra_kube.access import Access
    from nvdra_operator.options import Options
    from nvdra_sim.cluster.apiserver import ClusterStore
    from nvdra_testing.tapped_server import Arrival

# Between the two a leader has to stop: a busy machine needs some of that time.
LEASE_DURATION_S: Final = 9.0
RENEW_DEADLINE_S: Final = 4.0
ELECTION: Final = (
    "--leader-election-enabled=true",
    f"--leader-election-lease-duration={LEASE_DURATION_S:g}s",
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
        """Writes without a lease that was renewed within the deadline, as the server saw it; what
        the machine stood still meanwhile does not count.

        `allowance_s` is how long a write may have been on its way.
        """
        until_s, found = float("-inf"), []
        for one in self.line.arrived:
            if one.is_of_lease:
                until_s = one.lived_s + RENEW_DEADLINE_S if self._holds(one) else float("-inf")
            elif one.writes and one.resource != "leases" and one.lived_s > until_s + allowance_s:
                found.append(f"{self.name}: {one}, {one.lived_s - until_s:.2f} s late")
        return found

    def _holds(self, renewal: Arrival) -> bool:
        return bool(self.program.elector and renewal.holder == self.program.elector.identity)

    async def end(self) -> None:
        self.stop.set()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def a_replica(
    store: ClusterStore, name: str = "controller-0", *flags: str
) -> AsyncIterator[Replica]:
    """A running replica; with `ELECTION` among the flags it stands for the lease."""
    metrics = ControllerMetrics()
    overruns: list[float] = []
    async with AsyncExitStack() as stack:
        lived = await stack.enter_async_context(LivedTime.running())
        line = await stack.enter_async_context(TappedServer(store, lived=lived))

        def overrun() -> None:
            renewed_s = next(one.lived_s for one in reversed(line.arrived) if one.is_of_lease)
            overruns.append(lived.now_s() - renewed_s)

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
            overrun=overrun,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(program.run(stop), name=name)
        replica = Replica(name, line, program, metrics, stop, task)
        try:
            yield replica
        finally:
            await replica.end()
        # A process that was stopped finds its lease run out, and had no time to stop its work.
        assert [after_s for after_s in overruns if after_s > LEASE_DURATION_S - 2.0] == []


def robbed(running: list[Replica]) -> list[str]:
    """Leases that one took which another had renewed, and neither given back nor let run out."""
    renewals = sorted(
        (one for replica in running for one in replica.line.arrived if one.is_of_lease),
        key=lambda one: one.at_s,
    )
    return [
        f"{later.holder} {later.at_s - one.at_s:.2f} s after {one.holder}"
        for one, later in itertools.pairwise(renewals)
        if one.holder and later.holder not in ("", one.holder)
        if later.at_s - one.at_s < LEASE_DURATION_S - 0.1
    ]


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
