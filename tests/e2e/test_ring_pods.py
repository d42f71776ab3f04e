"""What every later test relies on: nodes, pods, networks, Services, webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.ring.errors import RingError
from tests.e2e.ring.objects import PORT, a_fetch, a_pod, a_server, a_service, names
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from tests.e2e.ring.cluster import RealCluster
    from tests.e2e.ring.kubectl import Kubectl


def test_two_nodes_are_ready_under_the_version_that_was_built(
    cluster: RealCluster, kubectl: Kubectl
) -> None:
    cluster.wait_until_nodes_ready()

    nodes = kubectl.list("nodes")
    assert names(nodes) == ["node-1", "node-2"]
    assert {node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes} == {"v1.36.3"}


def test_each_node_has_a_boot_id_of_its_own(cluster: RealCluster, kubectl: Kubectl) -> None:
    told = {node["status"]["nodeInfo"]["bootID"] for node in kubectl.list("nodes")}

    assert told == {node.boot_id for node in cluster.nodes}


def test_a_pod_sees_the_boot_id_of_its_node(
    cluster: RealCluster, kubectl: Kubectl, namespace: str
) -> None:
    node = cluster.nodes[0]
    see = "cat", "/proc/sys/kernel/random/boot_id"
    kubectl.create(a_pod("seer", *see, namespace=namespace, node=node.name))

    kubectl.wait_for_phase("Succeeded", "seer", namespace=namespace)

    assert kubectl.logs("seer", namespace=namespace).strip() == node.boot_id


def test_a_plain_pod_prints_and_ends(kubectl: Kubectl, namespace: str) -> None:
    script = "echo hello from $(hostname); exit 0"
    kubectl.create(a_pod("hello", "bash", "-c", script, namespace=namespace))

    kubectl.wait_for_phase("Succeeded", "hello", namespace=namespace)

    assert kubectl.logs("hello", namespace=namespace) == "hello from hello\n"


def test_a_pod_that_fails_is_reported_as_failed(kubectl: Kubectl, namespace: str) -> None:
    kubectl.create(a_pod("bad", "bash", "-c", "exit 3", namespace=namespace))

    failed = kubectl.wait_for_phase("Failed", "bad", namespace=namespace)

    [container] = failed["status"]["containerStatuses"]
    assert container["state"]["terminated"]["exitCode"] == 3


def test_a_pod_reaches_a_pod_on_the_other_node(kubectl: Kubectl, namespace: str) -> None:
    kubectl.create(a_server("server", namespace=namespace, node="node-1"))
    server = kubectl.wait_until_ready("server", namespace=namespace)
    url = f"http://{server['status']['podIP']}:{PORT}/"
    client = a_fetch("client", url, namespace=namespace, node="node-2")
    client["spec"]["restartPolicy"] = "OnFailure"  # it waits only 10 s for its answer
    kubectl.create(client)

    kubectl.wait_for_phase("Succeeded", "client", namespace=namespace)

    assert kubectl.logs("client", namespace=namespace) == "server\n"


def test_a_service_is_reached_by_its_cluster_ip(kubectl: Kubectl, namespace: str) -> None:
    labels = {"app": "server"}
    kubectl.create(
        a_server("server", namespace=namespace, node="node-2", labels=labels),
        a_service("front", labels, namespace=namespace),
    )
    kubectl.wait_until_ready("server", namespace=namespace)
    address = kubectl.get("service", "front", namespace=namespace)["spec"]["clusterIP"]
    retries = {"restartPolicy": "OnFailure"}  # kube-proxy may be a moment behind readiness
    client = a_fetch("client", f"http://{address}:{PORT}/", namespace=namespace, node="node-1")
    client["spec"] |= retries
    kubectl.create(client)

    kubectl.wait_for_phase("Succeeded", "client", namespace=namespace)

    assert kubectl.logs("client", namespace=namespace) == "server\n"


def test_a_command_runs_in_a_running_pod(kubectl: Kubectl, namespace: str) -> None:
    kubectl.create(a_pod("sleeper", "sleep", "infinity", namespace=namespace))
    kubectl.wait_until_ready("sleeper", namespace=namespace)

    said = kubectl("exec", "sleeper", f"--namespace={namespace}", "--", "cat", "/etc/hostname")

    assert said == "sleeper\n"


def test_an_unknown_image_fails_at_once_instead_of_asking_the_internet(
    kubectl: Kubectl, namespace: str
) -> None:
    pod = a_pod("stranger", "true", namespace=namespace)
    pod["spec"]["containers"][0]["image"] = "registry.example/none:v1"
    kubectl.create(pod)

    def failed() -> bool:
        status = kubectl.get("pod", "stranger", namespace=namespace)["status"]
        [container] = status.get("containerStatuses") or [{}]
        reason = container.get("state", {}).get("waiting", {}).get("reason")
        # The second soon takes the place of the first.
        if reason not in ("ErrImagePull", "ImagePullBackOff"):
            raise RingError(f"stranger has status {status}")
        return True

    eventually(failed, until="the image cannot be had")
