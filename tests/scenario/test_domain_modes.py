"""Ways to run ComputeDomains: addresses for names, no cliques, an IMEX of the hosts, no IMEX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nvdra_api.gates import FeatureGates
from nvdra_kube.resources import NODES, RESOURCE_SLICES
from nvdra_nodeagent.errors import AgentError, NodeFault, Permanent
from nvdra_nodeagent.hardware.ports import FabricState
from nvdra_testing.agent import until
from nvdra_testing.compute_domains import DomainCluster, a_cluster, some_settings
from nvdra_testing.domain_claims import (
    GB200_CLIQUE,
    a_daemon,
    a_made_domain,
    a_released_workload,
    a_waiting_workload,
    only,
    permanent,
    prepare,
    refused,
)
from nvdra_testing.domain_nodes import DomainNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_nodeagent.computedomain.agent import DomainAgent

NO_CLIQUES = "ComputeDomainCliques=false"
BY_ADDRESS = f"IMEXDaemonsWithDNSNames=false,{NO_CLIQUES}"
HOST_MANAGED = "--imex-mode=hostManaged"
HOST_GATE = "HostManagedIMEXDaemon=true"


@pytest.fixture
async def it() -> AsyncIterator[DomainCluster]:
    async with a_cluster() as cluster:
        yield cluster


async def devices(node: DomainNode) -> list[str]:
    (body,) = await node.it.everything(RESOURCE_SLICES)
    return [each["name"] for each in body["spec"]["devices"]]


def told_of(node: DomainNode, uid: str) -> tuple[int, int]:
    """How many peers, and how many nodes of all cliques, the daemon was told of."""
    peers = node.peers(uid)
    return len(peers.get("peers", ())), peers.get("total", 0)


@pytest.mark.parametrize(
    ("gates", "mode"),
    [(NO_CLIQUES, "dns"), (BY_ADDRESS, "ip"), ("IMEXDaemonsWithDNSNames=false", "ip")],
)
async def test_by_address_or_without_cliques_peers_come_from_the_status_of_the_domain(
    node: DomainNode, gates: str, mode: str
) -> None:
    it, settings = node.it, some_settings(gates=FeatureGates.parse(gates))
    # The agent's own gates are on: what counts is how the domain was made.
    async with it.running(settings), node.running() as agent:
        uid = await a_made_domain(it, num_nodes=2)
        _, waiting = await a_waiting_workload(agent, node, uid)
        await a_daemon(agent, node, uid)
        told = node.settings(uid)
        assert (told["mode"], told["numNodes"]) == (mode, 2 if mode == "ip" else 0)
        await it.join("node-2", uid, clique=GB200_CLIQUE)
        await it.daemon("node-2", uid, ip="10.0.0.2")
        await it.join("node-3", uid, clique="")
        await it.daemon("node-3", uid, ip="10.0.0.3", ready=True)
        await until(lambda: told_of(node, uid) == (2, 3))
        node.say(uid)
        assert only(await waiting).cdi_ids
        assert bool(await it.cliques()) is (NO_CLIQUES not in gates)
    peers = node.peers(uid)
    assert [(each["node"], each["ip"]) for each in peers["peers"]] == [
        ("node-1", "10.0.0.1"),
        ("node-2", "10.0.0.2"),
    ]
    assert peers["ownIndex"] == next(e["index"] for e in peers["peers"] if e["node"] == "node-1")


async def test_with_addresses_a_daemon_that_waits_for_others_is_the_cause(
    node: DomainNode,
) -> None:
    settings = some_settings(gates=FeatureGates.parse(BY_ADDRESS))
    async with (
        node.it.running(settings),
        node.running(gates=BY_ADDRESS, retry_budget_s=0.3) as agent,
    ):
        uid = await a_made_domain(node.it, num_nodes=2)
        await a_daemon(agent, node, uid)
        detail = "1 of 2 nodes are there"
        node.say(uid, ready=False, reason="WaitingForNodes", detail=detail)
        text = str(await refused(agent, await node.channel(uid)))
    assert f"WaitingForNodes: {detail}" in text


def host_imex_says(node: DomainNode, text: str, *, status: int = 0) -> None:
    program = node.hardware.directory / "driver-root/usr/bin/nvidia-imex-ctl"
    asked = node.root / "asked"
    program.write_text(f"#!/bin/sh\necho \"$@\" > '{asked}'\necho '{text}'\nexit {status}\n")


@pytest.fixture
async def host_node(node: DomainNode) -> AsyncIterator[tuple[DomainNode, DomainAgent]]:
    running = node.running(HOST_MANAGED, gates=HOST_GATE, retry_budget_s=0.3)
    async with node.it.running(some_settings(host_managed=True)), running as agent:
        yield node, agent


async def a_host_domain(node: DomainNode) -> str:
    return str((await node.it.domain())["metadata"]["uid"])


@pytest.mark.parametrize(
    ("said", "status"), [("NOT READY", 0), ("READY", 1), ("READY READY", 0), ("", 0)]
)
async def test_of_an_imex_of_the_host_only_its_exact_word_counts(
    host_node: tuple[DomainNode, DomainAgent], said: str, status: int
) -> None:
    node, agent = host_node
    host_imex_says(node, said, status=status)
    ref = await node.channel(await a_host_domain(node))
    outcome = await refused(agent, ref)
    assert f"the host's nvidia-imex says: {said or 'nothing'}" in str(outcome)
    host_imex_says(node, "READY")
    assert only(await prepare(agent, ref)).cdi_ids


async def test_with_an_imex_of_the_host_claims_get_one_channel_and_join_nothing(
    host_node: tuple[DomainNode, DomainAgent],
) -> None:
    node, agent = host_node
    host_imex_says(node, "READY")
    uid = await a_host_domain(node)
    ref = await node.channel(uid, allocationMode="All")
    assert only(await prepare(agent, ref)).cdi_ids
    spec = node.cdi(ref)
    assert spec
    (channel,) = spec.devices[0].container_edits.device_nodes
    assert channel.minor == 0
    assert await node.label() is None
    assert not (node.state_dir / "domains").exists()
    asked = (node.root / "asked").read_text()
    assert asked == "-q --u=/etc/nvidia-imex/imex_ctrl.sock\n"
    assert await agent.claims.unprepare([ref]) == {ref.uid: None}
    assert node.cdi(ref) is None


async def test_an_imex_of_the_host_is_asked_by_its_socket_below_the_driver_root(
    host_node: tuple[DomainNode, DomainAgent],
) -> None:
    node, agent = host_node
    host_imex_says(node, "READY")
    socket = node.hardware.directory / "driver-root/etc/nvidia-imex/imex_ctrl.sock"
    socket.parent.mkdir(parents=True)
    socket.touch()
    await prepare(agent, await node.channel(await a_host_domain(node)))
    assert (node.root / "asked").read_text() == f"-q --u={socket}\n"


async def test_with_an_imex_of_the_host_there_are_no_daemons(
    host_node: tuple[DomainNode, DomainAgent],
) -> None:
    node, agent = host_node
    await agent.publisher.wait_published()
    assert await devices(node) == ["channel-0"]
    text = await permanent(agent, await node.daemon(await a_host_domain(node)))
    assert "the hosts run nvidia-imex themselves" in text


async def test_with_an_imex_of_the_host_the_domain_has_to_be_the_claims(
    host_node: tuple[DomainNode, DomainAgent],
) -> None:
    node, agent = host_node
    host_imex_says(node, "READY")
    text = await permanent(agent, await node.channel("0d9c6b7a-0000-4000-8000-00000000dead"))
    assert "there is no ComputeDomain" in text


async def test_a_host_without_the_program_is_told_of_by_name(
    host_node: tuple[DomainNode, DomainAgent],
) -> None:
    node, agent = host_node
    (node.hardware.directory / "driver-root/usr/bin/nvidia-imex-ctl").unlink()
    outcome = await refused(agent, await node.channel(await a_host_domain(node)))
    assert isinstance(outcome, NodeFault)
    assert outcome.reason == "HostImexMissing"
    name = "nvidia_dra_compute_domain_readiness_wait_seconds_count"
    counted = agent._metrics.registry.get_sample_value(name, {"outcome": "given_up"})
    assert counted == 0  # nobody waits for what is not there


async def test_an_imex_of_the_host_needs_its_gate(node: DomainNode) -> None:
    with pytest.raises(Permanent, match="HostManagedIMEXDaemon"):
        async with node.running(HOST_MANAGED):
            pass


async def test_a_host_without_a_fabric_has_nothing_to_ask(
    it: DomainCluster, tmp_path: Path
) -> None:
    node = DomainNode(tmp_path, it, profile="h100")
    async with node.running(HOST_MANAGED, gates=HOST_GATE) as agent:
        ref = await node.channel(await a_host_domain(node))
        assert only(await prepare(agent, ref)).cdi_ids == ()


async def test_a_driver_without_imex_fails_its_claims_and_nothing_else(node: DomainNode) -> None:
    listed = node.hardware.directory / "proc/devices"
    lines = listed.read_text().splitlines(keepends=True)
    listed.write_text("".join(line for line in lines if "imex" not in line))
    async with node.it.running(), node.running() as agent:
        uid = await a_made_domain(node.it)
        await agent.publisher.wait_published()
        _, waiting = await a_waiting_workload(agent, node, uid)
        await a_daemon(agent, node, uid)
        node.say(uid)
        outcome = await waiting
        assert isinstance(outcome, NodeFault)
        assert "nvidia-caps-imex-channels" in str(outcome)
        assert agent._unhealthy() == ""


async def test_a_driver_without_the_capability_of_daemons_is_told_of_by_name(
    node: DomainNode,
) -> None:
    capability = node.hardware.directory / "proc/driver/nvidia/capabilities/fabric-imex-mgmt"
    capability.unlink()
    async with node.it.running(), node.running(retry_budget_s=0.3) as agent:
        uid = await a_made_domain(node.it)
        pod = await node.it.daemon(node.name, uid, ip="10.0.0.1")
        outcome = await refused(agent, await node.daemon(uid, pod=pod))
        assert "fabric-imex-mgmt" in str(outcome)
        assert agent.claims.records() == ()
        assert not node.directory(uid).exists()


async def gpu_clique(node: DomainNode) -> Any:
    labels = (await node.it.api.get(NODES, node.name))["metadata"].get("labels") or {}
    return labels.get("nvidia.com/gpu.clique")


async def test_the_clique_label_stands_as_long_as_the_agent(node: DomainNode) -> None:
    async with node.running("--gpu-clique-label-enabled=true"):
        assert await node.it.until(lambda: gpu_clique(node)) == GB200_CLIQUE
    assert await gpu_clique(node) is None


async def test_the_clique_label_follows_the_fabric(node: DomainNode) -> None:
    async with node.running("--gpu-clique-label-enabled=true") as agent:
        await node.it.until(lambda: gpu_clique(node))
        node.hardware.set_fabric(clique=9, cluster=GB200_CLIQUE.partition(".")[0])
        agent.fabric.look_again()

        async def moved() -> bool:
            return bool(await gpu_clique(node) == GB200_CLIQUE.replace(".1", ".9"))

        await node.it.until(moved)


async def test_without_the_flag_the_clique_label_is_somebody_elses(node: DomainNode) -> None:
    await node.it.node(node.name)
    labels = {"metadata": {"labels": {"nvidia.com/gpu.clique": "theirs"}}}
    await node.it.api.patch(NODES, node.name, labels)
    async with node.it.running(), node.running() as agent:
        await a_released_workload(agent, node, await a_made_domain(node.it))
    assert await gpu_clique(node) == "theirs"


async def test_a_gpu_that_registers_late_keeps_the_node_out_until_then(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, cluster = DomainNode(tmp_path, it), GB200_CLIQUE.partition(".")[0]
    node.hardware.set_fabric(clique=1, cluster=cluster, state=FabricState.IN_PROGRESS)
    async with it.running(), node.running(retry_budget_s=0.3, is_registering=True) as agent:
        uid = await a_made_domain(it)
        assert (await refused(agent, await node.channel(uid))).reason == "FabricNotReady"
        await until(lambda: "in_progress" in agent.unready())
        assert await it.everything(RESOURCE_SLICES) == []
        node.hardware.set_fabric(clique=1, cluster=cluster)
        await agent.publisher.wait_published()
        assert agent.unready() == ""
        answer = await prepare(agent, await node.channel(uid, "later"))
        assert isinstance(answer, AgentError) and answer.reason == "DomainNotReady"
