"""Claims for channels and daemons on a node: real controller, daemons that a test plays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_api.names import LABEL_COMPUTE_DOMAIN
from nvdra_kube.resources import NODES, PODS, RESOURCE_SLICES
from nvdra_nodeagent.errors import AgentError
from nvdra_testing.agent import until
from nvdra_testing.domain_claims import (
    GB200_CLIQUE,
    a_daemon,
    a_made_domain,
    a_released_workload,
    a_waiting_workload,
    only,
    prepare,
    refused,
)
from nvdra_testing.domain_nodes import BOOT, DomainNode

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.duties import Duty
    from nvdra_testing.compute_domains import DomainCluster


async def test_the_first_channel_and_the_daemon_are_published(node: DomainNode) -> None:
    async with node.running() as agent:
        await agent.publisher.wait_published()
        (body,) = (await node.it.api.list(RESOURCE_SLICES))["items"]
    found = {each["name"]: each["attributes"] for each in body["spec"]["devices"]}
    assert found == {
        "channel-0": {"type": {"string": "channel"}, "id": {"int": 0}},
        "daemon-0": {"type": {"string": "daemon"}, "id": {"int": 0}},
    }
    pool, driver = body["spec"]["pool"]["name"], body["spec"]["driver"]
    assert (pool, driver) == ("node-1", "compute-domain.nvidia.com")


async def test_a_workload_is_released_when_the_daemon_on_its_node_is_ready(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        ref, waiting = await a_waiting_workload(agent, node, uid)
        annotations = (await node.it.api.get(NODES, node.name))["metadata"]["annotations"]
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


async def test_all_channels_are_given_to_who_asks_for_all(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        ref, _ = await a_released_workload(agent, node, uid, allocationMode="All")
    spec = node.cdi(ref)
    assert spec
    channels = spec.devices[0].container_edits.device_nodes
    assert [each.minor for each in channels] == list(range(2048))


async def test_the_daemon_gets_its_settings_driver_and_directory(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
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
    assert {"rw", "nosuid", "nodev", "bind"} == set(mounts["/imexd"].options)
    assert "/usr/bin/nvidia-imex" in mounts
    nodes = {each.path for each in edits.device_nodes}
    assert {"/dev/nvidiactl", "/dev/nvidia3", "/dev/nvidia-caps/nvidia-cap4323"} <= nodes


async def test_the_daemon_is_told_its_peers_as_the_controller_writes_them(
    node: DomainNode,
) -> None:
    it, uid = node.it, await a_made_domain(node.it)
    async with node.running() as agent:
        _, waiting = await a_waiting_workload(agent, node, uid)
        await a_daemon(agent, node, uid)
        await until(lambda: node.peers(uid).get("ownIndex") == 0)
        await it.join("node-2", uid, clique=GB200_CLIQUE)
        await it.daemon("node-2", uid, ip="10.0.0.2")
        await until(lambda: addresses(node, uid) == ["10.0.0.1", "10.0.0.2"])
        node.say(uid)
        await waiting
    assert node.peers(uid)["peers"] == [
        {"node": "node-1", "ip": "10.0.0.1", "index": 0},
        {"node": "node-2", "ip": "10.0.0.2", "index": 1},
    ]
    assert node.peers(uid)["generation"] >= 2


def addresses(node: DomainNode, uid: str) -> list[str]:
    return [each["ip"] for each in node.peers(uid).get("peers", ())]


async def test_a_list_of_peers_that_went_missing_is_written_again(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    await node.it.join(node.name, uid, clique=GB200_CLIQUE)
    async with node.running() as agent:
        await a_daemon(agent, node, uid)
        await until(lambda: node.peers(uid).get("ownIndex") == 0)
        before = node.peers(uid)["generation"]
        (node.directory(uid) / "settings.json").write_text("{}")

        async def is_made_anew() -> bool:
            await agent.claims.verify()  # takes the peers away; who watches them may be quick
            return node.settings(uid) != {}

        await node.it.until(is_made_anew)
        (pod,) = await node.it.everything(PODS)
        await node.it.report(pod, ip="10.0.0.7", ready=False)
        await until(lambda: addresses(node, uid) == ["10.0.0.7"])
        assert node.peers(uid)["generation"] > before


async def test_a_node_without_a_fabric_releases_at_once_and_without_a_device(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it, profile="h100"), await a_made_domain(it)
    async with node.running() as agent:
        ref = await node.channel(uid)
        device = only(await prepare(agent, ref))
        assert (device.cdi_ids, node.cdi(ref)) == ((), None)
        assert await node.label() == uid


async def test_the_node_leaves_the_domain_with_its_last_workload(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        ref, daemon = await a_released_workload(agent, node, uid)
        assert await agent.claims.unprepare([ref]) == {ref.uid: None}
        assert (await node.label(), node.cdi(ref)) == (None, None)
        assert await agent.claims.unprepare([daemon]) == {daemon.uid: None}
        assert not node.directory(uid).exists()


async def test_the_next_workload_waits_for_the_end_of_the_one_before(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        first, _ = await a_released_workload(agent, node, uid)
    async with node.running(retry_budget_s=0.3) as agent:
        second = await node.channel(uid, "second")
        assert (await refused(agent, second)).reason == "DeviceInUse"
        await agent.claims.unprepare([first])
        assert not isinstance(await prepare(agent, second), AgentError)
        assert await node.label() == uid


async def test_a_node_is_in_one_domain_at_a_time(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    await node.it.join(node.name, await a_made_domain(node.it, "other"))
    async with node.running(retry_budget_s=0.3) as agent:
        outcome = await refused(agent, await node.channel(uid))
    assert outcome.reason == "NodeInOtherDomain"


async def test_a_released_workload_is_answered_again_whatever_the_daemon_does(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        ref, daemon = await a_released_workload(agent, node, uid)
        await agent.claims.unprepare([daemon])
    async with node.running() as agent:
        assert not isinstance(await prepare(agent, ref), AgentError)


async def test_directories_that_nobody_needs_are_swept(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        await a_daemon(agent, node, uid)
        stale = node.directory(BOOT)
        stale.mkdir()
        (stale / "ready.json").write_text("{}")
        assert agent.directories.sweep({uid}, older_than_s=-5.0) == [BOOT]
        assert node.directory(uid).is_dir()


async def test_cdi_files_that_somebody_removed_are_written_again(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        claims = await a_released_workload(agent, node, uid)
        await until(lambda: agent.claims._keepers.verifier._verified)
        for path in (node.root / "cdi").iterdir():
            path.unlink()
        agent.claims.hardware_changed()
        await until(lambda: all(node.cdi(ref) for ref in claims))
        assert node.settings(uid)["claimUID"] == claims[1].uid


def has_turned(duty: Duty) -> bool:
    return bool(duty.last_turn_s and duty.last_turn_s() > 0)


async def test_every_duty_that_goes_on_for_ever_has_a_pulse(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running("--gpu-clique-label-enabled=true") as agent:
        await a_released_workload(agent, node, uid)
        silent = {duty.name for duty in agent.duties if duty.last_turn_s is None}
        assert silent == {"dead sockets"}
        own = {"fabric", "daemon news", "peers", "domain directories", "clique label"}
        await until(lambda: own <= {each.name for each in agent.duties if has_turned(each)})


async def test_a_watch_of_peers_that_hangs_shows_in_the_pulse(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        await a_released_workload(agent, node, uid)
        await until(lambda: node.peers(uid).get("ownIndex") == 0)
        assert agent._unhealthy() == ""
        (duty,) = (duty for duty in agent.duties if duty.name == "peers")
        duty.pulse.began_s = -10_000.0
        assert agent._unhealthy() == ""
        (watch,) = agent.peers._watches.values()
        watch._turned_s = -10_000.0
        assert agent._unhealthy().startswith("peers has stood still for ")
