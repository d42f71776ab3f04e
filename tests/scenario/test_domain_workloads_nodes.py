"""Nodes of a ComputeDomain that are lost, replaced and rebooted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from nvdra_kube.resources import NODES
from nvdra_testing.domain_ring import PATIENCE_S, DomainRing, domain_ring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

TWO = ("node-1", "node-2")
SPARE = "node-3"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ring() -> AsyncIterator[DomainRing]:
    async with domain_ring(3) as it:
        yield it


async def test_a_lost_node_is_named_and_the_domain_is_whole_again_on_another(
    ring: DomainRing,
) -> None:
    async with ring.formed(TWO) as domain:
        index = (await ring.nodes_of(domain.name))["node-1"]["index"]

        await ring.cluster.power_off("node-2")

        condition = await ring.condition(domain.name, "Ready", reason="NodeNotReady")
        assert "node-2: " in condition["message"]
        assert "node-1" not in condition["message"]
        await ring.cluster.api.delete(NODES, "node-2")
        await ring.pod_gone(domain.pods[1])
        domain.pods[1] = await ring.workload(domain.name, SPARE)
        await ring.running(domain.pods[1])
        await ring.ready(domain.name)
        nodes = await ring.nodes_of(domain.name)
        assert set(nodes) == {"node-1", SPARE}
        assert nodes["node-1"]["index"] == index
        pod = await ring.pod(domain.pods[0])
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    await ring.cluster.power_on("node-2")
    await ring.cluster.wait_node("node-2", timeout_s=PATIENCE_S)


async def test_after_a_reboot_the_word_of_the_daemon_before_it_counts_for_nothing(
    ring: DomainRing,
) -> None:
    async with ring.formed(TWO) as domain:
        uid, pod = domain.uid, domain.pods[0]
        index = (await ring.nodes_of(domain.name))["node-1"]["index"]
        before = ring.said(uid, "node-1", "ready.json")
        await ring.cluster.power_off("node-1")
        assert ring.said(uid, "node-1", "ready.json") == before
        machine = ring.cluster.node("node-1").directories.machine
        program = machine / "driver-root" / "usr" / "bin" / "nvidia-imex"
        working = program.read_text()
        program.write_text("#!/bin/sh\nexit 3\n")

        await ring.cluster.power_on("node-1")

        async def speaks() -> dict[str, Any]:
            said = ring.said(uid, "node-1", "ready.json")
            return said if said.get("bootID") not in (None, before["bootID"]) else {}

        assert before["ready"] is True
        assert (await ring.until(speaks, "the daemon of this boot speaks"))["ready"] is False
        assert (await ring.pod(pod))["status"]["phase"] == "Pending"
        program.write_text(working)
        await ring.running(pod)
        await ring.ready(domain.name)
        assert (await ring.nodes_of(domain.name))["node-1"]["index"] == index
