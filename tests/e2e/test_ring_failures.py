"""The injectors do what they say: what runs goes on running, what was lost comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.e2e.ring.errors import CommandFailed, Ended
from tests.e2e.ring.kubectl import is_ready
from tests.e2e.ring.network import API_PORT, CONTROL_PLANE_IP
from tests.e2e.ring.objects import a_pod, container_id
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from tests.e2e.ring.cluster import RealCluster
    from tests.e2e.ring.kubectl import Kubectl, Manifest
    from tests.e2e.ring.node import Node

_FOREVER = ("sleep", "infinity")


@pytest.fixture
def sleeper(kubectl: Kubectl, namespace: str) -> Manifest:
    """A pod that runs on node-2 until it is deleted."""
    kubectl.create(
        a_pod("sleeper", *_FOREVER, namespace=namespace, node="node-2", restartPolicy="Always")
    )
    return kubectl.wait_until_ready("sleeper", namespace=namespace)


@pytest.fixture
def node(cluster: RealCluster) -> Node:
    return cluster.nodes[1]


def _pod_runs(kubectl: Kubectl, namespace: str, name: str) -> None:
    kubectl.create(a_pod(name, "true", namespace=namespace, node="node-2"))
    kubectl.wait_for_phase("Succeeded", name, namespace=namespace)


def test_pods_outlive_a_killed_kubelet(
    kubectl: Kubectl, namespace: str, sleeper: Manifest, node: Node
) -> None:
    node.kill_kubelet()
    assert not node.kubelet.is_running

    node.start_kubelet()
    _pod_runs(kubectl, namespace, "after")

    after = kubectl.get("pod", "sleeper", namespace=namespace)
    assert container_id(after) == container_id(sleeper)


def test_pods_outlive_a_restarted_containerd(
    kubectl: Kubectl, namespace: str, sleeper: Manifest, node: Node
) -> None:
    node.restart_containerd()
    _pod_runs(kubectl, namespace, "after")

    after = kubectl.get("pod", "sleeper", namespace=namespace)
    assert container_id(after) == container_id(sleeper)


def test_a_program_that_ended_is_not_waited_for(node: Node) -> None:
    brief = node.daemon("sh", "-c", "echo last words; sleep 1; exit 3")
    brief.start()
    with pytest.raises(Ended, match=r"sh on node-2 ended \(3\).*last words"):
        eventually(brief.check, until="it says that it runs")


def test_a_reboot_brings_a_new_boot_id_and_the_pod_in_a_new_container(
    kubectl: Kubectl, namespace: str, sleeper: Manifest, node: Node
) -> None:
    old_boot_id = node.boot_id

    node.reboot()

    def restarted() -> bool:
        pod = kubectl.get("pod", "sleeper", namespace=namespace)
        return is_ready(pod) and container_id(pod) != container_id(sleeper)

    eventually(restarted, until="the pod runs in a new container")
    assert node.boot_id != old_boot_id
    eventually(
        lambda: kubectl.get("node", node.name)["status"]["nodeInfo"]["bootID"] == node.boot_id,
        until="the kubelet has told the new boot id",
    )


def test_a_reboot_empties_run_and_keeps_the_disk(cluster: RealCluster, node: Node) -> None:
    node.enter("touch", "/run/lost", "/dev/lost", "/var/lib/kept", "/etc/kept")

    node.reboot()
    cluster.wait_until_nodes_ready()

    for kept in ("/var/lib/kept", "/etc/kept"):
        node.enter("rm", kept)
    for lost in ("/run/lost", "/dev/lost"):
        with pytest.raises(CommandFailed):
            node.enter("ls", lost)


def test_pods_run_on_while_the_api_server_is_down(
    cluster: RealCluster, kubectl: Kubectl, namespace: str, sleeper: Manifest
) -> None:
    cluster.api_server.stop()
    with pytest.raises(CommandFailed):
        kubectl("get", "nodes", "--request-timeout=5s")

    cluster.api_server.start()
    cluster.control_plane.wait_until_ready()
    _pod_runs(kubectl, namespace, "after")

    after = kubectl.get("pod", "sleeper", namespace=namespace)
    assert container_id(after) == container_id(sleeper)


def test_a_node_whose_cable_is_pulled_reaches_nobody(node: Node) -> None:
    knock = ("timeout", "3", "bash", "-c", f": < /dev/tcp/{CONTROL_PLANE_IP}/{API_PORT}")
    eventually(lambda: node.enter(*knock) == "", until="the node is on the network")

    node.unplug()
    try:
        with pytest.raises(CommandFailed):
            node.enter(*knock)
    finally:
        node.plug()

    eventually(lambda: node.enter(*knock) == "", until="the node is back on the network")


def test_nodes_do_not_see_each_others_files_and_devices(cluster: RealCluster) -> None:
    first, second = cluster.nodes
    first.enter("mknod", "/dev/only-here", "c", "195", "0")
    try:
        with pytest.raises(CommandFailed):
            second.enter("ls", "/dev/only-here")
    finally:
        first.enter("rm", "/dev/only-here")
