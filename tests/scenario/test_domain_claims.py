"""Claims for channels and daemons on a node: real controller, daemons that a test plays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from nvdra_api.names import LABEL_COMPUTE_DOMAIN, NAMESPACE
from nvdra_kube.resources import NAMESPACES, NODES, PODS, RESOURCE_SLICES
from nvdra_nodeagent.claims.model import PreparedDevice
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable
from nvdra_testing.agent import until
from nvdra_testing.compute_domains import DomainCluster, a_cluster
from nvdra_testing.domain_nodes import BOOT, DomainNode, a_domain_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.computedomain.agent import DomainAgent

GB200_CLIQUE = "6e766472-6120-5369-6d75-6c6174656420.1"
OTHER_BOOT = "b0071d00-2222-4000-8000-000000000004"


@pytest.fixture
async def it() -> AsyncIterator[DomainCluster]:
    async with a_cluster() as cluster, cluster.running():
        yield cluster


async def domain(it: DomainCluster, name: str = "job") -> str:
    uid = str((await it.domain(name, template=f"{name}-channels"))["metadata"]["uid"])
    await it.until(lambda: it.daemon_set(uid))
    return uid


async def prepare(agent: DomainAgent, ref: ClaimRef) -> object:
    return (await agent.claims.prepare([ref]))[ref.uid]


def only(answer: object) -> PreparedDevice:
    assert isinstance(answer, tuple), answer
    (device,) = answer
    assert isinstance(device, PreparedDevice)
    return device


async def a_daemon(
    agent: DomainAgent, node: DomainNode, uid: str, *, ip: str = "10.0.0.1"
) -> ClaimRef:
    """The daemon's pod lands, and its claim is prepared."""
    pod = await node.it.daemon(node.name, uid, ip=ip)
    ref = await node.daemon(uid, pod=pod)
    answer = await prepare(agent, ref)
    assert not isinstance(answer, AgentError), answer
    return ref


async def a_released_workload(
    agent: DomainAgent, node: DomainNode, uid: str
) -> tuple[ClaimRef, ClaimRef]:
    """Claims of the workload and of the daemon."""
    ref = await node.channel(uid)
    waiting = asyncio.create_task(prepare(agent, ref))
    await until_labelled(node, uid)
    daemon = await a_daemon(agent, node, uid)
    node.say(uid)
    answer = await waiting
    assert not isinstance(answer, AgentError), answer
    return ref, daemon


async def until_labelled(node: DomainNode, uid: str) -> None:
    async def labelled() -> bool:
        return await node.label() == uid

    await node.it.until(labelled)


async def test_the_first_channel_and_the_daemon_are_published(
    it: DomainCluster, tmp_path: Path
) -> None:
    async with DomainNode(tmp_path, it).running() as agent:
        await agent.publisher.wait_published()
        (body,) = (await it.api.list(RESOURCE_SLICES))["items"]
    found = {each["name"]: each["attributes"] for each in body["spec"]["devices"]}
    assert found == {
        "channel-0": {"type": {"string": "channel"}, "id": {"int": 0}},
        "daemon-0": {"type": {"string": "daemon"}, "id": {"int": 0}},
    }
    assert (body["spec"]["pool"]["name"], body["spec"]["driver"]) == (
        "node-1",
        "compute-domain.nvidia.com",
    )


async def test_a_workload_is_released_when_the_daemon_on_its_node_is_ready(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        ref = await node.channel(uid)
        waiting = asyncio.create_task(prepare(agent, ref))
        await until_labelled(node, uid)
        annotations = (await it.api.get(NODES, node.name))["metadata"]["annotations"]
        assert annotations == {f"{LABEL_COMPUTE_DOMAIN}.cliqueID": GB200_CLIQUE}
        await a_daemon(agent, node, uid)
        node.say(uid, ready=False)
        assert not waiting.done()
        node.say(uid)
        device = only(await waiting)
    assert device.cdi_ids == (f"k8s.compute-domain.nvidia.com/claim={ref.uid}-channel-0",)
    spec = node.cdi(ref)
    assert spec
    (channel,) = spec.devices[0].container_edits.device_nodes
    assert (channel.path, channel.major, channel.minor) == (
        "/dev/nvidia-caps-imex-channels/channel0",
        234,
        0,
    )


async def test_all_channels_are_given_to_who_asks_for_all(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        ref = await node.channel(uid, allocationMode="All")
        waiting = asyncio.create_task(prepare(agent, ref))
        await until_labelled(node, uid)
        await a_daemon(agent, node, uid)
        node.say(uid)
        await waiting
    spec = node.cdi(ref)
    assert spec
    channels = spec.devices[0].container_edits.device_nodes
    assert [each.minor for each in channels] == list(range(2048))


async def test_the_daemon_gets_its_settings_driver_and_directory(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        await agent.keeper.refresh()
        ref = await a_daemon(agent, node, uid)
    assert node.settings(uid) == {
        "version": 1,
        "claimUID": ref.uid,
        "bootID": BOOT,
        "domain": uid,
        "clique": GB200_CLIQUE,
        "node": "node-1",
        "maxNodes": 18,
        "mode": "dns",
        "suffix": node.settings(uid)["suffix"],
        "numNodes": 0,
    }
    spec = node.cdi(ref)
    assert spec
    edits = spec.devices[0].container_edits
    assert {
        f"CLIQUE_ID={GB200_CLIQUE}",
        f"COMPUTE_DOMAIN_UUID={uid}",
        "COMPUTE_DOMAIN_NAME=job",
        "COMPUTE_DOMAIN_NAMESPACE=default",
        f"COMPUTE_DOMAIN_CLAIM_UID={ref.uid}",
        f"COMPUTE_DOMAIN_BOOT_ID={BOOT}",
        "NVIDIA_VISIBLE_DEVICES=void",
    } <= set(edits.env)
    mounts = {mount.container_path: mount for mount in edits.mounts}
    assert mounts["/imexd"].host_path == str(node.directory(uid))
    assert "rw" in mounts["/imexd"].options
    assert "/usr/bin/nvidia-imex" in mounts
    nodes = {each.path for each in edits.device_nodes}
    assert {"/dev/nvidiactl", "/dev/nvidia3", "/dev/nvidia-caps/nvidia-cap4323"} <= nodes


async def test_the_daemon_is_told_its_peers_as_the_controller_writes_them(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        ref = await node.channel(uid)
        waiting = asyncio.create_task(prepare(agent, ref))
        await until_labelled(node, uid)
        await a_daemon(agent, node, uid)
        await until(lambda: node.peers(uid).get("ownIndex") == 0)
        await it.join("node-2", uid, clique=GB200_CLIQUE)
        await it.daemon("node-2", uid, ip="10.0.0.2")
        await until(lambda: len(node.peers(uid)["peers"]) == 2)
        node.say(uid)
        await waiting
    assert node.peers(uid)["peers"] == [
        {"node": "node-1", "ip": "10.0.0.1", "index": 0},
        {"node": "node-2", "ip": "10.0.0.2", "index": 1},
    ]
    assert node.peers(uid)["generation"] >= 2


async def test_a_node_without_a_fabric_releases_at_once_and_without_a_device(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it, profile="h100"), await domain(it)
    async with node.running() as agent:
        ref = await node.channel(uid)
        device = only(await prepare(agent, ref))
        assert (device.cdi_ids, node.cdi(ref)) == ((), None)
        assert await node.label() == uid


async def test_the_node_leaves_the_domain_with_its_last_workload(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        ref, daemon = await a_released_workload(agent, node, uid)
        assert await agent.claims.unprepare([ref]) == {ref.uid: None}
        assert (await node.label(), node.cdi(ref)) == (None, None)
        assert await agent.claims.unprepare([daemon]) == {daemon.uid: None}
        assert not node.directory(uid).exists()


async def test_the_next_workload_waits_for_the_end_of_the_one_before(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        first, _ = await a_released_workload(agent, node, uid)
    async with node.running(retry_budget_s=0.3) as agent:
        second = await node.channel(uid, "second")
        outcome = await prepare(agent, second)
        assert isinstance(outcome, Retryable)
        assert outcome.reason == "DeviceInUse"
        await agent.claims.unprepare([first])
        assert not isinstance(await prepare(agent, second), AgentError)
        assert await node.label() == uid


async def test_a_node_is_in_one_domain_at_a_time(it: DomainCluster, tmp_path: Path) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    await it.join(node.name, await domain(it, "other"))
    async with node.running(retry_budget_s=0.3) as agent:
        outcome = await prepare(agent, await node.channel(uid))
    assert isinstance(outcome, Retryable)
    assert outcome.reason == "NodeInOtherDomain"


async def test_the_last_cause_is_answered_when_the_daemon_does_not_come(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running(retry_budget_s=0.3) as agent:
        ref = await node.channel(uid)
        outcome = await prepare(agent, ref)
        assert isinstance(outcome, Retryable)
        assert "has not been started" in str(outcome)
        assert await node.label() == uid  # or the daemon would never come
        await agent.claims.unprepare([ref])
        assert await node.label() is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"claimUID": "another"}, "an earlier daemon"),
        ({"bootID": OTHER_BOOT}, "an earlier daemon"),
        ({"ready": "true"}, "Ready"),
        ({"ready": False, "reason": "ImexStarting"}, "ImexStarting"),
    ],
)
async def test_words_of_another_daemon_count_for_nothing(
    it: DomainCluster, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running(retry_budget_s=0.3) as agent:
        await a_daemon(agent, node, uid)
        node.say(uid, **changes)  # type: ignore[arg-type]
        outcome = await prepare(agent, await node.channel(uid))
    assert isinstance(outcome, Retryable)
    assert said in str(outcome)


async def test_a_released_workload_is_answered_again_whatever_the_daemon_does(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        ref, daemon = await a_released_workload(agent, node, uid)
        await agent.claims.unprepare([daemon])
    async with node.running() as agent:
        assert not isinstance(await prepare(agent, ref), AgentError)


async def test_after_a_reboot_the_old_word_of_the_daemon_counts_for_nothing(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        ref, _ = await a_released_workload(agent, node, uid)
    async with node.running(boot_id=OTHER_BOOT, retry_budget_s=0.3) as agent:
        assert isinstance(await prepare(agent, ref), Retryable)


async def permanent(agent: DomainAgent, ref: ClaimRef) -> str:
    outcome = await prepare(agent, ref)
    assert isinstance(outcome, Permanent), outcome
    return str(outcome)


async def test_wrong_channel_claims_are_refused_at_once(it: DomainCluster, tmp_path: Path) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    await it.api.create(NAMESPACES, {"metadata": {"name": "elsewhere"}})
    other = str((await it.domain("far", namespace="elsewhere"))["metadata"]["uid"])
    unknown = {**a_domain_config("Channel", uid), "hello": 1}
    async with node.running() as agent:
        told = [
            await permanent(agent, await node.channel(uid, "a", config=unknown)),
            await permanent(agent, await node.channel("../../etc", "b")),
            await permanent(agent, await node.channel(BOOT, "c")),
            await permanent(agent, await node.channel(other, "d")),
            await permanent(agent, await node.channel(uid, "e", allocationMode="Some")),
            await permanent(agent, await node.channel("", "f")),
        ]
        assert await node.label() is None
    assert 'unknown field "hello"' in told[0]
    assert all("error preparing devices" in text for text in told)
    assert "is not the UID" in told[1]
    assert "there is no ComputeDomain" in told[2]
    assert "there is no ComputeDomain" in told[3]


async def test_a_domain_that_is_being_deleted_takes_no_workload(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        ref, _ = await a_released_workload(agent, node, uid)
        await it.delete()
        await agent.claims.unprepare([ref])
        text = await permanent(agent, await node.channel(uid, "late"))
    assert "is being deleted" in text or "there is no ComputeDomain" in text


async def test_daemons_are_the_drivers_own(it: DomainCluster, tmp_path: Path) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        foreign = await node.daemon(uid, namespace="default")
        assert "belong into dra-driver-nvidia-gpu" in await permanent(agent, foreign)
        pod = await it.api.create(
            PODS,
            {
                "metadata": {"name": "intruder", "namespace": NAMESPACE},
                "spec": {"containers": [{"name": "a", "image": "b"}]},
            },
            namespace=NAMESPACE,
        )
        ref = await node.daemon(uid, pod=pod, name="intruder")
        assert "is no daemon" in await permanent(agent, ref)
        assert not node.directory(uid).exists()


async def test_directories_that_nobody_needs_are_swept(it: DomainCluster, tmp_path: Path) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running() as agent:
        await a_daemon(agent, node, uid)
        stale = node.directory(BOOT)
        stale.mkdir()
        (stale / "ready.json").write_text("{}")
        kept = {uid}
        assert agent.directories.sweep(kept, older_than_s=-5.0) == [BOOT]
        assert node.directory(uid).is_dir()


async def test_the_clique_label_stands_as_long_as_the_agent(
    it: DomainCluster, tmp_path: Path
) -> None:
    node = DomainNode(tmp_path, it)

    async def label() -> str | None:
        labels = (await it.api.get(NODES, node.name))["metadata"].get("labels") or {}
        found: str | None = labels.get("nvidia.com/gpu.clique")
        return found

    async with node.running("--gpu-clique-label-enabled=true"):
        assert await it.until(label) == GB200_CLIQUE
    assert await label() is None


HOST_MANAGED = "--imex-mode=hostManaged"
HOST_GATE = "HostManagedIMEXDaemon=true"


def host_imex_says(node: DomainNode, text: str) -> None:
    program = node.hardware.directory / "driver-root/usr/bin/nvidia-imex-ctl"
    program.write_text(f"#!/bin/sh\necho '{text}'\n")


async def test_with_an_imex_of_the_host_only_its_exact_word_counts(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), await domain(it)
    async with node.running(HOST_MANAGED, gates=HOST_GATE, retry_budget_s=0.3) as agent:
        host_imex_says(node, "NOT READY")
        ref = await node.channel(uid)
        outcome = await prepare(agent, ref)
        assert isinstance(outcome, Retryable)
        assert "NOT READY" in str(outcome)
        host_imex_says(node, "READY")
        assert only(await prepare(agent, ref)).cdi_ids
        assert await node.label() is None
        assert "the hosts run" in await permanent(agent, await node.daemon(uid))


async def test_an_imex_of_the_host_needs_its_gate(it: DomainCluster, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="HostManagedIMEXDaemon"):
        async with DomainNode(tmp_path, it).running(HOST_MANAGED):
            pass
