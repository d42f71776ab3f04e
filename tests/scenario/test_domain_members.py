"""Cliques, slots and status of a domain as nodes come, fail and go."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from nvdra_api.gates import FeatureGates
from nvdra_api.names import (
    ANNOTATION_PROTOCOL,
    ANNOTATION_RESERVATIONS,
    LABEL_CLIQUE_ID,
    LABEL_COMPUTE_DOMAIN,
    NAMESPACE,
)
from nvdra_kube.resources import NODES, PODS
from nvdra_operator.domains.scene import is_dying, node_of
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS
from nvdra_testing.compute_domains import CLIQUE, DomainCluster, a_cluster, some_settings

# A machine that stalls must not look like a watch that lags, nor like nodes that wait for long.
pytestmark = pytest.mark.looptime


async def a_formed_domain(it: DomainCluster, *nodes: str, **options: Any) -> str:
    """A domain whose daemons are all ready; returns its UID."""
    uid = str((await it.domain(**options))["metadata"]["uid"])
    await it.until(lambda: it.daemon_set(uid))
    for number, node in enumerate(nodes):
        await it.join(node, uid)
        await it.daemon(node, uid, ip=f"10.0.0.{number + 1}", ready=True)
    await it.condition(reason="NodesReady")

    async def complete() -> bool:
        return len((await it.look())["status"]["nodes"]) == len(nodes)

    await it.until(complete)
    return uid


async def entries(it: DomainCluster) -> dict[str, dict[str, object]]:
    """Entries of the only clique by node."""
    cliques = await it.cliques()
    return {entry["nodeName"]: entry for body in cliques for entry in body.get("daemons") or ()}


async def test_a_daemon_becomes_an_entry_and_a_node_of_the_status() -> None:
    async with a_cluster() as it, it.running():
        uid = await a_formed_domain(it, "node-1")
        (clique,) = await it.cliques()
        assert clique["metadata"]["name"] == f"{uid}.{CLIQUE}"
        assert clique["metadata"]["labels"] == {LABEL_COMPUTE_DOMAIN: uid, LABEL_CLIQUE_ID: CLIQUE}
        assert clique["metadata"]["annotations"][ANNOTATION_PROTOCOL] == "1"
        assert clique["daemons"] == [
            {
                "nodeName": "node-1",
                "ipAddress": "10.0.0.1",
                "cliqueID": CLIQUE,
                "index": 0,
                "status": "Ready",
            }
        ]
        (node,) = (await it.look())["status"]["nodes"]
        assert node == {
            "name": "node-1",
            "ipAddress": "10.0.0.1",
            "cliqueID": CLIQUE,
            "index": 0,
            "status": "Ready",
        }


async def test_an_index_is_reserved_before_the_daemon_has_an_address() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.until(lambda: it.daemon_set(uid))
        await it.join("node-1", uid)
        pod = await it.daemon("node-1", uid)
        (clique,) = await it.until(it.cliques)
        recorded = json.loads(clique["metadata"]["annotations"][ANNOTATION_RESERVATIONS])
        assert recorded == {"node-1": {"index": 0, "podUID": pod["metadata"]["uid"]}}
        assert not clique.get("daemons")

        async def labelled() -> bool:
            found = await it.api.get(PODS, pod["metadata"]["name"], namespace=NAMESPACE)
            return bool(found["metadata"]["labels"].get(LABEL_CLIQUE_ID) == CLIQUE)

        await it.until(labelled)


async def test_a_domain_waits_for_as_many_nodes_as_it_was_promised() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain(num_nodes=2))["metadata"]["uid"]
        found = await it.condition(reason="WaitingForNodes")
        assert found["message"].startswith("0 of 2 nodes")
        assert (await it.look())["status"]["status"] == "NotReady"
        for number in (1, 2):
            await it.join(f"node-{number}", uid)
            await it.daemon(f"node-{number}", uid, ip=f"10.0.0.{number}", ready=True)
        await it.condition(reason="NodesReady")
        assert (await it.look())["status"]["status"] == "Ready"

        async def told() -> bool:
            return "NodesReady" in await it.events()

        await it.until(told)


async def test_a_daemon_that_is_not_ready_is_named_with_its_reason() -> None:
    async with a_cluster() as it, it.running():
        uid = await a_formed_domain(it, "node-1", "node-2")
        (pod,) = [pod for pod in await it.everything(PODS) if pod["spec"]["nodeName"] == "node-2"]
        await it.report(pod, ip="10.0.0.2", ready=False)
        found = await it.condition(reason="NodeNotReady")
        assert "node-2: daemon is not ready" in found["message"]
        assert (await entries(it))["node-2"]["status"] == "NotReady"
        assert (await it.look())["status"]["status"] == "NotReady"
        assert uid


async def test_a_node_that_fails_makes_its_entry_not_ready() -> None:
    async with a_cluster() as it, it.running():
        await a_formed_domain(it, "node-1", "node-2")
        node = await it.node("node-1")
        node["status"] = {
            "conditions": [
                {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"},
            ]
        }
        await it.api.update(NODES, node, subresource="status")
        found = await it.condition(reason="NodeNotReady")
        assert "node-1: node is not ready: NodeStatusUnknown" in found["message"]


async def test_a_replaced_daemon_keeps_its_index_and_is_not_ready_until_it_says_so() -> None:
    async with a_cluster() as it, it.running():
        uid = await a_formed_domain(it, "node-1", "node-2")
        before = await entries(it)
        (pod,) = [p for p in await it.everything(PODS) if p["spec"]["nodeName"] == "node-1"]
        await it.remove(pod)
        await it.condition(reason="NodeNotReady")
        await it.daemon("node-1", uid, ip="10.9.9.9", ready=False)

        async def readdressed() -> bool:
            return (await entries(it))["node-1"]["ipAddress"] == "10.9.9.9"

        await it.until(readdressed)
        after = await entries(it)
        assert after["node-1"]["index"] == before["node-1"]["index"]
        assert after["node-1"]["status"] == "NotReady"


async def test_an_index_is_free_once_node_and_daemon_have_left() -> None:
    async with a_cluster() as it, it.running():
        uid = await a_formed_domain(it, "node-1", "node-2")
        await it.leave("node-1")
        await it.quiet()
        assert set(await entries(it)) == {"node-1", "node-2"}
        (pod,) = [p for p in await it.everything(PODS) if p["spec"]["nodeName"] == "node-1"]
        await it.remove(pod)

        async def left() -> bool:
            return set(await entries(it)) == {"node-2"}

        await it.until(left)
        await it.join("node-3", uid)
        await it.daemon("node-3", uid, ip="10.0.0.3", ready=True)

        async def taken() -> bool:
            found = await entries(it)
            return "node-3" in found and found["node-3"]["index"] == 0

        await it.until(taken)


async def test_a_clique_goes_with_its_last_daemon() -> None:
    async with a_cluster() as it, it.running():
        await a_formed_domain(it, "node-1")
        (pod,) = await it.everything(PODS)
        await it.leave("node-1")
        await it.remove(pod)

        async def empty() -> bool:
            return not await it.cliques()

        await it.until(empty)
        await it.condition(reason="NoNodesYet")


async def test_a_clique_that_somebody_deletes_comes_back_with_the_same_indexes() -> None:
    async with a_cluster() as it, it.running():
        uid = await a_formed_domain(it, "node-2", "node-1")
        await it.quiet()
        before = await entries(it)
        await it.api.delete(CLIQUES, f"{uid}.{CLIQUE}", namespace=NAMESPACE)

        async def back() -> bool:
            return await entries(it) == before

        await it.until(back)


async def test_a_new_controller_keeps_the_indexes_of_the_old_one() -> None:
    async with a_cluster() as it:
        async with it.running():
            uid = await a_formed_domain(it, "node-9", "node-1")
            before = await entries(it)
        await it.join("node-0", uid)
        await it.daemon("node-0", uid, ip="10.0.0.7", ready=True)
        async with it.running():

            async def joined() -> bool:
                return "node-0" in await entries(it)

            await it.until(joined)
        after = await entries(it)
        assert {node: after[node] for node in before} == before
        assert after["node-0"]["index"] == 2


async def test_more_nodes_than_a_clique_can_have_are_reported() -> None:
    async with a_cluster() as it, it.running(some_settings(max_nodes=2)):
        uid = await a_formed_domain(it, "node-1", "node-2")
        await it.join("node-3", uid)
        await it.daemon("node-3", uid, ip="10.0.0.3", ready=True)
        found = await it.condition("Connected", reason="CliqueFull")
        assert "node-3" in found["message"]
        assert (await it.look())["status"]["status"] == "NotReady"
        assert set(await entries(it)) == {"node-1", "node-2"}


async def test_a_node_without_a_fabric_takes_part_without_a_slot() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.until(lambda: it.daemon_set(uid))
        await it.join("node-1", uid, clique="")
        await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
        found = await it.condition("Connected", reason="NodesWithoutFabric")
        assert "node-1" in found["message"]
        (node,) = (await it.look())["status"]["nodes"]
        assert (node["cliqueID"], node["index"], node["status"]) == ("", -1, "Ready")
        assert await it.cliques() == []


async def test_a_node_whose_agent_says_nothing_of_cliques_is_reported() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.until(lambda: it.daemon_set(uid))
        await it.join("node-1", uid, clique=None)
        await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
        found = await it.condition("Connected", reason="CliqueUnknown")
        assert "node-1" in found["message"]


async def test_without_cliques_the_status_holds_the_members() -> None:
    async with a_cluster() as it:
        gates = FeatureGates.parse("ComputeDomainCliques=false")
        settings = some_settings(gates=gates)
        async with it.running(settings):
            await a_formed_domain(it, "node-2", "node-1")
            assert await it.cliques() == []
            nodes = (await it.look())["status"]["nodes"]
            before = {node["name"]: node["index"] for node in nodes}
            assert sorted(before.values()) == [0, 1]
        (pod,) = [p for p in await it.everything(PODS) if p["spec"]["nodeName"] == "node-1"]
        await it.remove(pod)
        async with it.running(settings):
            await it.condition(reason="NodeNotReady")
            nodes = (await it.look())["status"]["nodes"]
            assert {node["name"]: node["index"] for node in nodes} == before


async def test_a_domain_with_nodes_goes_on_as_it_began_when_the_gate_is_switched() -> None:
    async with a_cluster() as it:
        async with it.running():
            uid = await a_formed_domain(it, "node-1")
        await it.join("node-2", uid)
        await it.daemon("node-2", uid, ip="10.0.0.2", ready=True)
        gates = FeatureGates.parse("ComputeDomainCliques=false")
        async with it.running(some_settings(gates=gates)):

            async def joined() -> bool:
                return set(await entries(it)) == {"node-1", "node-2"}

            await it.until(joined)


async def test_eighteen_nodes_that_come_at_once_need_few_writes() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        it.recorded.writes.clear()
        names = [f"node-{n:02}" for n in range(18)]
        await asyncio.gather(*(it.join(name, uid) for name in names))
        pods = [await it.daemon(name, uid) for name in names]
        for number, pod in enumerate(pods):
            await it.report(pod, ip=f"10.0.1.{number}", ready=True)
        await it.condition(reason="NodesReady")

        async def complete() -> bool:
            found = await entries(it)
            return len(found) == 18 and all(one["status"] == "Ready" for one in found.values())

        await it.until(complete)
        await it.quiet()
        found = await entries(it)
        assert sorted(int(str(one["index"])) for one in found.values()) == list(range(18))
        on_cliques = [write for write in it.writes if "computedomaincliques" in write]
        on_pods = [write for write in it.writes if write.startswith("patch pods")]
        assert len(on_pods) == 18
        assert len(on_cliques) <= 18


async def test_a_server_that_drops_conditions_is_not_written_to_again_and_again() -> None:
    async with a_cluster(conditions=False) as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]

        async def ready() -> bool:
            return bool((await it.look()).get("status", {}).get("status") == "Ready")

        await it.until(ready)
        await it.quiet()
        written = len(it.recorded.writes)
        touched = {"metadata": {"annotations": {"users": "own"}}}
        for _ in range(5):
            await it.api.patch(COMPUTE_DOMAINS, "job", touched, namespace="default")
            await it.quiet()
        assert len(it.recorded.writes) == written
        assert "conditions" not in (await it.look())["status"]
        assert uid


async def test_a_foreign_object_with_the_name_of_a_clique_is_reported_and_left_alone() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        name = f"{uid}.{CLIQUE}"
        theirs = {"metadata": {"name": name, "namespace": NAMESPACE}, "daemons": []}
        foreign = await it.api.create(CLIQUES, theirs, namespace=NAMESPACE)
        await it.until(lambda: it.daemon_set(uid))
        await it.join("node-1", uid)
        await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
        found = await it.condition("Accepted", reason="NameConflict")
        assert f"ComputeDomainClique {NAMESPACE}/{name} exists already" in found["message"]
        await it.quiet()
        assert "NameConflict" in await it.events()
        tries = [write for write in it.writes if write.startswith("create computedomaincliques")]
        assert len(tries) == 1
        await it.delete()
        (pod,) = await it.everything(PODS)
        await it.remove(pod)
        await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
        assert await it.cliques() == [foreign]


async def test_a_clique_whose_label_a_person_took_off_is_known_again() -> None:
    async with a_cluster() as it, it.running():
        uid = await a_formed_domain(it, "node-1")
        await it.quiet()
        (before,) = await it.cliques()
        bare = {"metadata": {"labels": None}}
        await it.api.patch(CLIQUES, f"{uid}.{CLIQUE}", bare, namespace=NAMESPACE)

        async def mended() -> bool:
            (found,) = await it.cliques()
            return bool(found["metadata"].get("labels") == before["metadata"]["labels"])

        await it.until(mended)
        (after,) = await it.cliques()
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["daemons"] == before["daemons"]


async def test_nodes_that_pass_quickly_through_waiting_cost_no_write_of_the_status() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        it.recorded.writes.clear()
        await it.join("node-1", uid)
        await it.quiet()
        assert it.writes == []


async def test_a_node_that_waits_longer_is_named() -> None:
    async with a_cluster() as it, it.running():
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        await it.join("node-1", uid)
        found = await it.condition("Connected", reason="WaitingForDaemons")
        assert found["message"] == "node-1: daemon has no pod yet"
        assert (await it.look())["status"]["status"] == "Ready"


async def test_the_daemon_of_a_node_that_moved_to_another_clique_makes_room_for_the_next() -> None:
    async with a_cluster() as it, it.running():
        uid = await a_formed_domain(it, "node-1", "node-2")
        await it.join("node-2", uid, clique=f"{CLIQUE}9")

        async def ending() -> list[str]:
            return [node_of(pod) for pod in await it.everything(PODS) if is_dying(pod)]

        assert await it.until(ending) == ["node-2"]
