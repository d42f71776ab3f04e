"""Objects that vanish under running pods: what they held is free again, and nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.injectors.users import Users, left_on, wait_until_clean
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from tests.e2e.product.release import Product
    from tests.e2e.ring.cluster import RealCluster
    from tests.e2e.ring.kubectl import Kubectl, Manifest
    from tests.e2e.ring.node import Node


def test_the_gpu_of_a_force_deleted_pod_goes_to_the_next_one(users: Users, node: Node) -> None:
    names = [f"user-{number}" for number in range(8)]
    users.run(*names)
    gpu, files = users.gpu("user-3"), left_on(node)

    users.kubectl("delete", "pod", "user-3", f"--namespace={users.namespace}",
                  "--grace-period=0", "--force")  # fmt: skip
    users.run("next")

    assert users.gpu("next") == gpu  # the node has no other
    # One claim's files went, another's came.
    eventually(
        lambda: len(left_on(node)) == len(files) != len(left_on(node) & files),
        until="the files of the deleted pod's claim are gone",
    )


def test_a_namespace_deleted_under_running_pods_leaves_nothing(
    kubectl: Kubectl, node: Node, product: Product
) -> None:
    kubectl.create_namespace("doomed")
    try:
        users = Users(kubectl, "doomed", node)
        users.prepare()
        kubectl.create(_a_claim("unused", namespace="doomed"))
        users.run("one", "two")
        assert left_on(node)
    finally:
        kubectl("delete", "namespace", "doomed", "--wait")

    wait_until_clean(node)
    assert not [
        claim
        for claim in kubectl.list("resourceclaims", "--all-namespaces")
        if claim["metadata"]["namespace"] == "doomed"
    ]


def test_a_node_that_is_deleted_and_joins_at_once_publishes_under_its_new_uid(
    users: Users, product: Product, cluster: RealCluster, node: Node
) -> None:
    devices = product.devices(node)

    _delete(users.kubectl, node)
    node.kill_kubelet()
    node.start_kubelet()
    cluster.wait_until_nodes_ready()

    _wait_published(product, node, devices)
    users.run("new")
    assert users.gpu("new") in devices.values()


def test_a_node_that_was_away_until_its_pods_were_collected_works_when_it_joins_again(
    users: Users, product: Product, cluster: RealCluster, node: Node
) -> None:
    devices = product.devices(node)
    users.run("old")

    node.kill_kubelet()
    try:
        _delete(users.kubectl, node)
        eventually(lambda: not _pods_on(users.kubectl, node), until="its pods are collected")
        eventually(lambda: not product.devices(node), until="its slices are collected")
    finally:
        node.start_kubelet()
    cluster.wait_until_nodes_ready()

    _wait_published(product, node, devices)
    wait_until_clean(node)
    users.run("new")
    assert users.gpu("new") in devices.values()


def _delete(kubectl: Kubectl, node: Node) -> None:
    kubectl("delete", "node", node.name, "--wait")


def _pods_on(kubectl: Kubectl, node: Node) -> list[Manifest]:
    found = kubectl.list("pods", "--all-namespaces", f"--field-selector=spec.nodeName={node.name}")
    return list(found)


def _wait_published(product: Product, node: Node, devices: dict[tuple[str, str], str]) -> None:
    """Wait until the node's devices are there, in slices that belong to its Node of today."""
    product.wait_until_ready(node)
    today = product.kubectl.get("node", node.name)["metadata"]["uid"]

    def published() -> bool:
        owners = {
            owner["uid"]
            for each in product.slices()
            if each["spec"].get("nodeName") == node.name
            for owner in each["metadata"]["ownerReferences"]
        }
        return owners == {today} and product.devices(node) == devices

    eventually(published, until=f"{node.name} has published under its new uid")


def _a_claim(name: str, *, namespace: str) -> Manifest:
    request = {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"devices": {"requests": [request]}},
    }
