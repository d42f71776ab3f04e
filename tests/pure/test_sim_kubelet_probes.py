"""HTTP probes of the embedded kubelet."""

from __future__ import annotations

import asyncio
from typing import Any

from nvdra_sim.cluster.kubelet.addresses import next_address
from nvdra_sim.cluster.kubelet.probes import http_probe, is_probed, keep_probed


def a_container(port: int, **probe: Any) -> dict[str, Any]:
    action = {"httpGet": {"port": port, "path": "/ready"}}
    return {"name": "a", "readinessProbe": {**action, "periodSeconds": 0.01, **probe}}


class Server:
    """Answers with `status` on an address that a pod would have."""

    def __init__(self) -> None:
        self.address = next_address()
        self.status = 200
        self.paths: list[str] = []
        self.open = 0

    async def start(self) -> tuple[asyncio.Server, int]:
        server = await asyncio.start_server(self._answer, self.address, 0)
        return server, server.sockets[0].getsockname()[1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            words = (await reader.readline()).split()
            if words:
                self.paths.append(words[1].decode())
                writer.write(f"HTTP/1.1 {self.status} x\r\n\r\n".encode())
            writer.close()
            await writer.wait_closed()
        finally:
            self.open -= 1


async def test_readiness_follows_the_answers() -> None:
    it = Server()
    server, port = await it.start()
    told: asyncio.Queue[bool] = asyncio.Queue()
    container = a_container(port, failureThreshold=1)
    probing = asyncio.create_task(keep_probed(container, address=it.address, report=told.put))
    async with server, asyncio.timeout(50):
        assert await told.get() is True
        it.status = 503
        assert await told.get() is False
        it.status = 200
        assert await told.get() is True
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        while it.open:
            await asyncio.sleep(0.001)
    assert set(it.paths) == {"/ready"}


async def test_nobody_there_is_a_failure() -> None:
    probe = http_probe(a_container(1), "readinessProbe")
    assert probe
    assert not await probe.succeeds(next_address())


def test_only_http_probes_are_asked() -> None:
    assert is_probed(a_container(80))
    assert not is_probed({"name": "a", "readinessProbe": {"exec": {"command": ["true"]}}})


def test_addresses_are_each_pods_own() -> None:
    found = [next_address() for _ in range(1000)]
    assert len(set(found)) == len(found)
    assert all(address.startswith("127.") for address in found)
