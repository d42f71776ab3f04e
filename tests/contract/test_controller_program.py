"""`nvdra-controller` as a process, against the embedded API server over HTTPS."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest

from nvdra_kube.resources import LEASES
from nvdra_operator.resources import COMPUTE_DOMAINS
from nvdra_sim.cluster.apiserver import ApiServer
from nvdra_testing.compute_domains import DomainCluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PATIENCE_S: Final = 40.0
FLAGS: Final = (
    "--image-name=nvdra:test",
    "--log-verbosity-cd-daemon=4",
    "--namespace=dra-driver-nvidia-gpu",
    "--http-endpoint=127.0.0.1:0",
)
ELECTION: Final = (
    "--leader-election-enabled=true",
    "--leader-election-lease-duration=3s",
    "--leader-election-renew-deadline=2s",
    "--leader-election-retry-period=200ms",
)


class Running:
    """A process and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def read(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            self.lines.append(line.decode())

    async def said(self, words: str) -> str:
        """The line with these words, once it is there."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                if found := next((line for line in self.lines if words in line), ""):
                    return found
                assert self.process.returncode is None, "".join(self.lines)
                await asyncio.sleep(0.02)

    async def fetch(self, path: str) -> tuple[int, str]:
        port = (await self.said("serving metrics")).rsplit("port=", 1)[1].strip()
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()

    async def metrics(self, series: str) -> str:
        """All of them once this one is there: the program hears of its own writes later."""
        async with asyncio.timeout(_PATIENCE_S):
            while series not in (text := (await self.fetch("/metrics"))[1]):
                await asyncio.sleep(0.02)
        return text

    async def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(_PATIENCE_S):
            return await self.process.wait()


@asynccontextmanager
async def a_controller(
    server: ApiServer, root: Path, *flags: str, name: str = "controller-0"
) -> AsyncIterator[Running]:
    (root / "ca.crt").write_text(server.ca_pem)
    (root / "token").write_text(server.token)
    host, port = server.url.removeprefix("https://").rsplit(":", 1)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "POD_NAME": name,
        "TMPDIR": str(root),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nvdra_operator.main", f"--service-account-dir={root}"),
        *(*FLAGS, *flags),
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Running(process)
    reading = asyncio.create_task(running.read(), name="log of the controller")
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def a_served_cluster() -> DomainCluster:
    it = DomainCluster()
    await it.install()
    return it


@pytest.mark.parametrize("lifecycle", ["kopf", "mirror"])
async def test_the_program_makes_a_domain_and_tells_of_it(tmp_path: Path, lifecycle: str) -> None:
    it = await a_served_cluster()
    flag = f"--lifecycle={lifecycle}"
    async with ApiServer(it.store) as server, a_controller(server, tmp_path, flag) as running:
        await it.domain()
        await it.condition(reason="NoNodesYet")
        assert await running.fetch("/healthz") == (200, "ok")
        assert await running.fetch("/readyz") == (200, "ok")
        text = await running.metrics('nvidia_dra_compute_domain_info{status="Ready"} 1.0')
        for series in (
            'nvidia_dra_compute_domain_info{status="NotReady"} 0.0',
            'nvidia_dra_compute_domain_nodes{status="Ready"} 0.0',
            'nvidia_dra_workqueue_depth{queue="compute-domains"}',
            "nvidia_dra_compute_domain_formation_seconds_count 0.0",
            'nvidia_dra_kube_api_requests_total{code="201",resource="daemonsets",verb="create"}',
        ):
            assert series in text
        assert await running.end() == 0


async def test_domains_are_counted_right_after_a_restart(tmp_path: Path) -> None:
    it = await a_served_cluster()
    async with ApiServer(it.store) as server:
        async with a_controller(server, tmp_path) as running:
            await it.domain()
            await it.condition(reason="NoNodesYet")
            await running.end()
        async with a_controller(server, tmp_path) as running:
            await running.said("controller started")
            _, text = await running.fetch("/metrics")
            assert 'nvidia_dra_compute_domain_info{status="Ready"} 1.0' in text


async def test_the_lease_is_acquired_and_given_back(tmp_path: Path) -> None:
    it = await a_served_cluster()
    async with ApiServer(it.store) as server:
        # The usual times: a server that is slow for a second must not spoil the release.
        async with a_controller(server, tmp_path, ELECTION[0]) as running:
            await running.said("successfully acquired lease")
            name = "nvidia-compute-domain-controller"
            lease = await it.api.get(LEASES, name, namespace="default")
            assert lease["spec"]["holderIdentity"].startswith("controller-0-")
            assert await running.end() == 0
            lease = await it.api.get(LEASES, name, namespace="default")
            assert lease["spec"]["holderIdentity"] == ""


async def test_a_killed_leader_is_followed_by_the_other_replica(tmp_path: Path) -> None:
    it = await a_served_cluster()
    roots = [Path(tempfile.mkdtemp(dir=tmp_path)) for _ in range(2)]
    async with ApiServer(it.store) as server:
        async with a_controller(server, roots[0], *ELECTION, name="first") as first:
            await first.said("successfully acquired lease")
            # The lease says for how long it was the first one's; the second may stall for longer.
            async with a_controller(server, roots[1], ELECTION[0], name="second") as second:
                await second.said("attempting to acquire lease")
                await first.end(signal.SIGKILL)
                await it.domain()
                await second.said("successfully acquired lease")
                await it.condition(reason="NoNodesYet")
                await it.delete()
                await it.gone(COMPUTE_DOMAINS, "job", namespace="default")


async def test_stacks_are_written_on_a_signal_and_the_program_goes_on(tmp_path: Path) -> None:
    it = await a_served_cluster()
    async with ApiServer(it.store) as server, a_controller(server, tmp_path) as running:
        await running.said("controller started")
        running.process.send_signal(signal.SIGUSR2)
        await running.said("stacks written")
        dump = (tmp_path / "nvdra-stacks.dump").read_text()
        assert "Task mirror" in dump
        assert "Thread" in dump
        assert (await running.fetch("/healthz"))[0] == 200


async def test_a_server_that_cannot_be_reached_is_waited_for(tmp_path: Path) -> None:
    it = await a_served_cluster()
    async with ApiServer(it.store) as server:
        pass
    async with a_controller(server, tmp_path, *ELECTION) as running:
        await running.said("lease not reached")
        assert await running.fetch("/readyz") == (200, "ok")
        assert await running.end() == 0
