"""The node agent, as a process on each node, under real kubelets: claims become devices."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.e2e.ring.kubectl import is_ready
from tests.e2e.ring.node_files import KUBELET_KUBECONFIG
from tests.e2e.ring.objects import a_gpu_pod, a_gpu_template, container_id
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.e2e.ring.cluster import RealCluster
    from tests.e2e.ring.kubectl import Kubectl, Manifest
    from tests.e2e.ring.machine import Daemon
    from tests.e2e.ring.node import Node

_DRIVER = "gpu.nvidia.com"
_CLASS = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "DeviceClass",
    "metadata": {"name": _DRIVER},
    "spec": {
        "selectors": [
            {
                "cel": {
                    "expression": f"device.driver == '{_DRIVER}' && "
                    f"device.attributes['{_DRIVER}'].type == 'gpu'"
                }
            }
        ]
    },
}


def _an_agent(node: Node) -> Daemon:
    return node.daemon(
        sys.executable,
        "-m",
        "nvdra_nodeagent.main",
        f"--node-name={node.name}",
        f"--kubeconfig={KUBELET_KUBECONFIG}",
        "--cdi-root=/var/run/cdi",
        "--simulate=h100",
        "--simulate-state=/var/lib/nvdra-simulator",
        log="gpu-agent",
    )


def _slices(kubectl: Kubectl) -> Sequence[Manifest]:
    return [seen for seen in kubectl.list("resourceslices") if seen["spec"]["driver"] == _DRIVER]


@pytest.fixture(scope="module")
def agents(cluster: RealCluster) -> Iterator[list[Daemon]]:
    """Simulated GPUs on every node, published and ready for claims."""
    kubectl = cluster.kubectl
    kubectl.apply(_CLASS)
    started = [_an_agent(node) for node in cluster.nodes]

    def published() -> bool:
        for agent in started:
            agent.check()
        told = {seen["spec"]["nodeName"] for seen in _slices(kubectl)}
        return told == {node.name for node in cluster.nodes}

    try:
        for agent in started:
            agent.start()
        eventually(published, until="every node has published its GPUs")
        yield started
    finally:
        # Also where an agent did not come up: the tests after these install the same driver.
        for agent in started:
            agent.stop()
        kubectl("delete", "resourceslices", "--all")
        kubectl.delete(_CLASS)


def _gpu_names(said: str) -> list[str]:
    return re.findall(r"UUID: (GPU-[0-9a-f-]+)", said)


def _published(kubectl: Kubectl, node: str) -> set[str]:
    devices = [
        device
        for seen in _slices(kubectl)
        if seen["spec"]["nodeName"] == node
        for device in seen["spec"].get("devices", [])
    ]
    return {device["attributes"]["uuid"]["string"] for device in devices}


@pytest.mark.usefixtures("agents")
def test_a_pod_with_a_claim_sees_one_gpu_of_its_own_node(kubectl: Kubectl, namespace: str) -> None:
    kubectl.create(a_gpu_template(namespace=namespace))
    kubectl.create(a_gpu_pod("user", "nvidia-smi", "-L", namespace=namespace, node="node-2"))

    kubectl.wait_for_phase("Succeeded", "user", namespace=namespace)

    [uuid] = _gpu_names(kubectl.logs("user", namespace=namespace))
    assert uuid in _published(kubectl, "node-2")


@pytest.mark.usefixtures("agents")
def test_the_devices_of_the_claim_are_in_the_container_and_no_others(
    kubectl: Kubectl, namespace: str
) -> None:
    kubectl.create(a_gpu_template(namespace=namespace))
    look = ("sh", "-c", "cd /dev; ls -d nvidia[0-9]*")
    kubectl.create(a_gpu_pod("user", *look, namespace=namespace))

    kubectl.wait_for_phase("Succeeded", "user", namespace=namespace)

    assert len(kubectl.logs("user", namespace=namespace).split()) == 1


@pytest.mark.usefixtures("agents")
def test_the_cdi_file_is_gone_after_the_pod(
    cluster: RealCluster, kubectl: Kubectl, namespace: str
) -> None:
    node = cluster.nodes[0]
    kubectl.create(a_gpu_template(namespace=namespace))
    pod = a_gpu_pod("user", "sleep", "infinity", namespace=namespace, node=node.name)
    kubectl.create(pod)
    kubectl.wait_for_phase("Running", "user", namespace=namespace)
    [claim] = kubectl.list("resourceclaims", f"--namespace={namespace}")
    uid = claim["metadata"]["uid"]
    assert uid in node.enter("ls", "/var/run/cdi")

    kubectl.delete(pod)

    eventually(lambda: uid not in node.enter("ls", "/var/run/cdi"), until="the CDI file is gone")


_SAY_AND_STAY = ("sh", "-c", "nvidia-smi -L; exec sleep infinity")


@pytest.fixture
def user(agents: list[Daemon], kubectl: Kubectl, namespace: str) -> Iterator[Manifest]:
    """A pod on node-2 that has told its GPU and runs on, in any number of containers."""
    kubectl.create(a_gpu_template(namespace=namespace))
    pod = a_gpu_pod("user", *_SAY_AND_STAY, namespace=namespace, node="node-2")
    pod["spec"]["restartPolicy"] = "Always"
    kubectl.create(pod)
    yield kubectl.wait_until_ready("user", namespace=namespace)
    kubectl.delete(pod)


def _gpus_of(kubectl: Kubectl, pod: str, namespace: str) -> list[str]:
    said = partial(kubectl.logs, pod, namespace=namespace)
    return eventually(lambda: _gpu_names(said()), until=f"{pod} has told its GPUs")


def test_slices_wiped_by_a_kubelet_start_come_back(
    cluster: RealCluster, kubectl: Kubectl, user: Manifest
) -> None:
    node = cluster.nodes[1]
    before = {seen["metadata"]["uid"] for seen in _slices(kubectl)}
    told = _published(kubectl, node.name)

    node.kill_kubelet()
    node.start_kubelet()

    def wiped() -> bool:
        return not before <= {seen["metadata"]["uid"] for seen in _slices(kubectl)}

    eventually(wiped, until="the kubelet has deleted the slices of its node")
    eventually(lambda: _published(kubectl, node.name) == told, until="the slices are back")


def test_after_a_kubelet_restart_a_running_pod_keeps_its_gpu_and_a_new_one_gets_another(
    cluster: RealCluster, kubectl: Kubectl, user: Manifest
) -> None:
    node, namespace = cluster.nodes[1], user["metadata"]["namespace"]
    [first] = _gpus_of(kubectl, "user", namespace)

    node.kill_kubelet()
    node.start_kubelet()
    kubectl.create(a_gpu_pod("next", "nvidia-smi", "-L", namespace=namespace, node=node.name))
    kubectl.wait_for_phase("Succeeded", "next", namespace=namespace)

    [second] = _gpus_of(kubectl, "next", namespace)
    assert second != first
    after = kubectl.get("pod", "user", namespace=namespace)
    assert container_id(after) == container_id(user)


def test_after_a_reboot_the_pod_has_the_gpu_of_its_claim_again(
    cluster: RealCluster, agents: list[Daemon], kubectl: Kubectl, user: Manifest
) -> None:
    namespace = user["metadata"]["namespace"]
    before = _gpus_of(kubectl, "user", namespace)

    cluster.nodes[1].reboot()
    agents[1].start()

    def restarted() -> bool:
        pod = kubectl.get("pod", "user", namespace=namespace)
        return is_ready(pod) and container_id(pod) != container_id(user)

    eventually(restarted, until="the pod runs in a new container")
    assert _gpus_of(kubectl, "user", namespace) == before


def test_an_agent_killed_under_a_running_pod_serves_the_next_one(
    agents: list[Daemon], kubectl: Kubectl, user: Manifest
) -> None:
    namespace = user["metadata"]["namespace"]

    agents[1].kill()
    kubectl.create(a_gpu_pod("next", "nvidia-smi", "-L", namespace=namespace, node="node-2"))
    agents[1].start()

    kubectl.wait_for_phase("Succeeded", "next", namespace=namespace)
    assert _gpus_of(kubectl, "next", namespace) != _gpus_of(kubectl, "user", namespace)
