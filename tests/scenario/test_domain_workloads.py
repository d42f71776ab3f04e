"""Workloads in ComputeDomains of several nodes, with everything that forms them as processes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from nvdra_api.names import LABEL_COMPUTE_DOMAIN
from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIMS
from nvdra_operator.cliques.slots import read_slots
from nvdra_testing.domain_ring import FABRIC_CLIQUE, DomainRing, domain_ring, kill
from nvdra_testing.imex import is_running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

ALL = ("node-1", "node-2", "node-3", "node-4")
TWO = ALL[:2]
OTHERS = ALL[2:]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ring() -> AsyncIterator[DomainRing]:
    async with domain_ring(len(ALL)) as it:
        yield it


async def test_four_nodes_form_a_domain_in_which_every_daemon_reaches_every_other(
    ring: DomainRing,
) -> None:
    async with ring.formed(ALL) as domain:
        for pod, node in zip(domain.pods, ALL, strict=True):
            assert await ring.channels(pod, node) == ["channel0"]
        nodes = await ring.nodes_of(domain.name)
        assert sorted(node["index"] for node in nodes.values()) == [0, 1, 2, 3]
        assert {node["cliqueID"] for node in nodes.values()} == {FABRIC_CLIQUE}

        async def connected() -> bool:
            reports = [ring.said(domain.uid, node, "domain.json") for node in ALL]
            return all(each.get("state") == "UP" and len(each["nodes"]) == 4 for each in reports)

        await ring.until(connected, "all daemons say that the domain of four is up")


async def test_domains_form_side_by_side_and_share_no_node(ring: DomainRing) -> None:
    async with ring.formed(TWO) as first, ring.formed(OTHERS) as second:
        for domain, nodes in ((first, TWO), (second, OTHERS)):
            assert set(await ring.nodes_of(domain.name)) == set(nodes)
            # A daemon is ready before it has heard of all the others.
            await ring.until(partial(peers_are, ring, domain.uid, nodes), f"{nodes} are peers")
            for node in nodes:
                labels = (await ring.cluster.api.get(NODES, node))["metadata"]["labels"]
                assert labels[LABEL_COMPUTE_DOMAIN] == domain.uid
        one = ring.said(first.uid, TWO[0], "settings.json")["suffix"]
        assert one != ring.said(second.uid, OTHERS[0], "settings.json")["suffix"]


async def test_a_killed_nvidia_imex_is_started_again_at_its_place(ring: DomainRing) -> None:
    async with ring.formed(TWO) as domain:
        index = (await ring.nodes_of(domain.name))["node-1"]["index"]
        before = await ring.imex(domain.uid, "node-1")
        kill(before)

        async def another() -> bool:
            is_ready = ring.said(domain.uid, "node-1", "ready.json").get("ready") is True
            return is_ready and await ring.imex(domain.uid, "node-1") != before

        await ring.until(another, "another nvidia-imex is ready")
        await ring.ready(domain.name)
        assert (await ring.nodes_of(domain.name))["node-1"]["index"] == index
        daemon = await ring.daemon(domain.uid, "node-1")
        assert daemon["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_a_killed_daemon_comes_back_under_its_index_and_its_workload_runs_on(
    ring: DomainRing,
) -> None:
    async with ring.formed(TWO) as domain:
        index = (await ring.nodes_of(domain.name))["node-2"]["index"]
        claim = ring.said(domain.uid, "node-2", "ready.json")["claimUID"]
        orphan = await ring.imex(domain.uid, "node-2")
        kill(await ring.daemon_process(domain.uid, "node-2"))

        async def restarted() -> bool:
            daemon = await ring.daemon(domain.uid, "node-2")
            return bool(daemon["status"]["containerStatuses"][0]["restartCount"] == 1)

        await ring.until(restarted, "the daemon's container is started again")
        await ring.daemon_ready(domain.uid, "node-2")
        await ring.ready(domain.name)
        assert not is_running(orphan)
        assert ring.said(domain.uid, "node-2", "ready.json")["claimUID"] == claim
        assert (await ring.nodes_of(domain.name))["node-2"]["index"] == index
        status = (await ring.pod(domain.pods[1]))["status"]
        assert status["phase"] == "Running"
        assert status["containerStatuses"][0]["restartCount"] == 0


async def test_a_deleted_daemon_is_replaced_under_its_index_though_a_lower_one_is_free(
    ring: DomainRing,
) -> None:
    async with ring.formed(TWO) as domain:
        places = {node["index"]: name for name, node in (await ring.nodes_of(domain.name)).items()}
        await ring.delete_pod(domain.pods[TWO.index(places[0])])

        async def alone() -> bool:
            [clique] = await ring.cliques_of(domain.uid)
            return set(read_slots(clique)) == {places[1]}

        await ring.until(alone, "index 0 is free again")
        meta = (await ring.daemon(domain.uid, places[1]))["metadata"]
        await ring.cluster.api.delete(
            PODS, meta["name"], namespace=meta["namespace"], grace_period_s=0
        )

        async def replaced() -> int:
            found = await ring.daemon_ready(domain.uid, places[1])
            entry = (await ring.nodes_of(domain.name)).get(places[1]) or {}
            has_entry = entry.get("ipAddress") == found["status"]["podIP"]
            is_other = found["metadata"]["uid"] != meta["uid"]
            return int(entry["index"]) if has_entry and is_other else 0

        assert await ring.until(replaced, "another daemon has the node's entry") == 1


async def test_a_workload_that_is_deleted_by_force_and_made_again_finds_its_place(
    ring: DomainRing,
) -> None:
    async with ring.formed(TWO) as domain:
        index = (await ring.nodes_of(domain.name))["node-1"]["index"]
        pod = domain.pods[0]

        await ring.delete_pod(pod, force=True)
        await ring.workload(domain.name, "node-1", name=pod)

        await ring.running(pod)
        assert await ring.channels(pod, "node-1") == ["channel0"]

        async def whole() -> bool:
            """The controller may still be about to say that the node left."""
            nodes = await ring.nodes_of(domain.name)
            return set(nodes) == set(TWO) and nodes["node-1"]["index"] == index

        await ring.until(whole, "the node has its place again")
        await ring.ready(domain.name)


async def test_a_domain_that_is_deleted_under_load_leaves_nothing_and_its_pods_can_end(
    ring: DomainRing,
) -> None:
    async with ring.formed(ALL) as domain:
        imex = [await ring.imex(domain.uid, node) for node in ALL]

        await ring.delete_domain(domain.name)

        await ring.gone(domain)
        assert not any(map(is_running, imex))
        for pod in domain.pods:
            assert (await ring.pod(pod))["status"]["phase"] == "Running"
            await ring.delete_pod(pod)
        for pod in domain.pods:
            await ring.pod_gone(pod)

        async def claims_gone() -> bool:
            listed = await ring.cluster.api.list(RESOURCE_CLAIMS, namespace="default")
            return not listed["items"]

        await ring.until(claims_gone, "the claims of the pods are gone")
        for node in ALL:
            assert not ring.shared(domain.uid, node).exists()


async def test_a_domain_forms_though_its_controller_is_killed_again_and_again(
    ring: DomainRing,
) -> None:
    controller = ring.cluster.controllers[0].process
    starts = controller.starts
    async with ring.forming(ALL) as domain:
        controller.kill()

        async def first_entry() -> bool:
            return any(clique.get("daemons") for clique in await ring.cliques_of(domain.uid))

        await ring.until(first_entry, "the clique has its first entry")
        controller.kill()
        for pod in domain.pods:
            await ring.running(pod)
        await ring.ready(domain.name)

        async def started_again() -> bool:
            return controller.starts == starts + 2

        await ring.until(started_again, "the controller runs again")
        indices = [node["index"] for node in (await ring.nodes_of(domain.name)).values()]
        assert sorted(indices) == [0, 1, 2, 3]
        await ring.delete_domain(domain.name)
        controller.kill()


async def peers_are(ring: DomainRing, uid: str, nodes: Sequence[str]) -> bool:
    """Whether each of the nodes was told of all of them, and of no other."""
    told = [ring.said(uid, node, "peers.json").get("peers", ()) for node in nodes]
    return all({peer["node"] for peer in each} == set(nodes) for each in told)
