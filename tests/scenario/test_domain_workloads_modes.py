"""ComputeDomains of other modes, and with two controllers, from the API to the container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_api.names import NAMESPACE
from nvdra_kube.resources import LEASES
from nvdra_sim.cluster.kubelet.interpreter import InterpretedRuntime
from nvdra_testing.domain_ring import domain_ring
from nvdra_testing.imex import is_running, until

if TYPE_CHECKING:
    from nvdra_testing.domain_ring import DomainRing

pytestmark = pytest.mark.timeout(300)

TWO = ("node-1", "node-2")
WITHOUT_CLIQUES = "ComputeDomainCliques=false"
BY_ADDRESS = f"IMEXDaemonsWithDNSNames=false,{WITHOUT_CLIQUES}"
SOON = (
    *("--leader-election-lease-duration", "4s"),
    *("--leader-election-renew-deadline", "3s"),
    *("--leader-election-retry-period", "500ms"),
)


def nodes_file(ring: DomainRing, uid: str, node: str) -> list[str]:
    return (ring.shared(uid, node) / "nodes.cfg").read_text().split()


@pytest.mark.namespaces
async def test_without_cliques_the_domain_itself_lists_its_members() -> None:
    async with domain_ring(2, gates=WITHOUT_CLIQUES) as ring, ring.formed(TWO) as domain:
        assert await ring.cliques_of(domain.uid) == []
        nodes = await ring.nodes_of(domain.name)
        assert sorted(node["index"] for node in nodes.values()) == [0, 1]
        assert len(nodes_file(ring, domain.uid, "node-1")) == 18
        for pod, node in zip(domain.pods, TWO, strict=True):
            assert await ring.channels(pod, node) == ["channel0"]


@pytest.mark.namespaces
async def test_by_address_nobody_is_released_before_all_nodes_are_there() -> None:
    async with domain_ring(2, gates=BY_ADDRESS) as ring:
        name = ring.name()
        uid = await ring.domain(name, num_nodes=2)
        pods = [await ring.workload(name, "node-1")]

        async def waits() -> bool:
            said = ring.said(uid, "node-1", "ready.json")
            return said.get("ready") is False and said["reason"] == "WaitingForNodes"

        await ring.until(waits, "the first daemon waits for the second")
        pods.append(await ring.workload(name, "node-2"))
        for pod in pods:
            await ring.running(pod)
        await ring.ready(name)
        assert await ring.cliques_of(uid) == []
        addresses = {node["ipAddress"] for node in (await ring.nodes_of(name)).values()}
        for node in TWO:
            assert set(nodes_file(ring, uid, node)) == addresses


@pytest.mark.namespaces
async def test_a_domain_forms_under_the_other_controller_when_the_leader_is_killed() -> None:
    async with domain_ring(1, controllers=2, lifecycle="kopf", controller_flags=SOON) as ring:
        holder = await leader(ring)
        [killed] = [each for each in ring.cluster.controllers if holder.startswith(each.name)]
        killed.process.kill()

        async with ring.formed(TWO[:1]) as domain:
            assert set(await ring.nodes_of(domain.name)) == {"node-1"}
            assert await leader(ring) != holder


async def test_where_namespaces_are_not_allowed_daemons_are_plain_processes() -> None:
    runtime = InterpretedRuntime(reason="a test")
    async with domain_ring(2, runtime=runtime) as ring, ring.formed(TWO) as domain:
        daemons = [await ring.daemon_process(domain.uid, node) for node in TWO]
        imex = [await ring.imex(domain.uid, node) for node in TWO]
        for pod, node in zip(domain.pods, TWO, strict=True):
            assert "no namespaces on this machine" in " ".join(await ring.channels(pod, node))
    # What was killed with its daemon ends when it gets its turn.
    until(lambda: not any(map(is_running, [*daemons, *imex])), "nothing of the domain runs")


async def leader(ring: DomainRing) -> str:
    """Who holds the lease, once somebody does."""

    async def holder() -> str:
        for lease in (await ring.cluster.api.list(LEASES, namespace=NAMESPACE))["items"]:
            return str(lease["spec"].get("holderIdentity") or "")
        return ""

    return await ring.until(holder, "a controller leads")
