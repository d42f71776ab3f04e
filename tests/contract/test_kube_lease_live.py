"""The elector over HTTPS against the embedded API server."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from nvdra_kube.lease import Elector, LeaseTimes, Role
from nvdra_kube.lease_record import LeaseRecord
from nvdra_kube.resources import LEASES
from nvdra_sim.cluster.apiserver import ClusterStore
from nvdra_testing.kube_server import connected, until

# Often asked for, and never lost by a machine that stalls.
QUICK = LeaseTimes(lease_duration_s=60.0, renew_deadline_s=50.0, retry_period_s=0.05)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_leadership_passes_on_over_https() -> None:
    async with connected(ClusterStore()) as api:
        electors = [
            Elector(api, namespace="default", name="controller", identity=name, times=QUICK)
            for name in ("a", "b")
        ]
        tasks = [asyncio.create_task(elector.run(forever)) for elector in electors]
        try:
            await until(lambda: any(elector.role is Role.LEADER for elector in electors))
            first = next(n for n, elector in enumerate(electors) if elector.role is Role.LEADER)
            tasks[first].cancel()
            await until(lambda: electors[1 - first].role is Role.LEADER)
            lease = await api.get(LEASES, "controller", namespace="default")
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        record = LeaseRecord.of(lease)
        assert record.holder == electors[1 - first].identity
        assert (record.transitions, record.duration_s) == (1, 60)
        assert LeaseRecord.of(await api.get(LEASES, "controller", namespace="default")).holder == ""
