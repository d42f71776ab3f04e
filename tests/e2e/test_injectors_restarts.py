"""Programs and machines that restart: running pods keep their GPUs, new pods get theirs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e.injectors.plugin_process import process_of
from tests.e2e.injectors.users import Users, claims_on, left_on, wait_until_clean
from tests.e2e.ring.objects import container_id
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.product.release import Product
    from tests.e2e.ring.cluster import RealCluster
    from tests.e2e.ring.node import Node

_API_OUTAGE_S = 60.0
"""Longer than a node may be silent (40 s) and than a plugin tries to prepare (45 s)."""


def _assert_undisturbed(users: Users, failure: Callable[[], None]) -> None:
    """A pod runs on through the failure; one that comes after it gets another GPU."""
    users.run("old")
    gpu, container = users.gpu("old"), users.container("old")

    failure()

    users.run("new")
    assert users.gpu("new") != gpu
    assert users.gpu("old") == gpu
    assert users.container("old") == container


def test_pods_with_gpus_outlive_a_kubelet_restart(users: Users, node: Node) -> None:
    def restart() -> None:
        node.kill_kubelet()
        node.start_kubelet()

    _assert_undisturbed(users, restart)


def test_slices_that_a_starting_kubelet_wipes_are_back(product: Product, node: Node) -> None:
    old = {each["metadata"]["uid"] for each in product.slices()}
    devices = product.devices(node)

    node.kill_kubelet()
    node.start_kubelet()

    def wiped() -> bool:
        return not old <= {each["metadata"]["uid"] for each in product.slices()}

    eventually(wiped, until="the kubelet has wiped the slices of its node")
    eventually(lambda: product.devices(node) == devices, until="the slices are back")


def test_pods_with_gpus_outlive_a_containerd_restart(
    users: Users, product: Product, node: Node
) -> None:
    plugin = container_id(product.pod_on(node))

    _assert_undisturbed(users, node.restart_containerd)

    assert container_id(product.pod_on(node)) == plugin


def test_a_rebooted_node_gives_its_pods_their_gpus_again(users: Users, node: Node) -> None:
    users.run("old")
    gpu, container, files = users.gpu("old"), users.container("old"), left_on(node)

    node.reboot()

    eventually(lambda: users.container("old") not in ("", container), until="it was restarted")
    users.wait_until_ready("old")
    users.run("new")
    assert users.gpu("old") == gpu != users.gpu("new")
    assert files < left_on(node)


def test_pods_and_slices_outlive_an_api_server_outage(
    users: Users, product: Product, cluster: RealCluster, node: Node
) -> None:
    slices = {each["metadata"]["uid"] for each in product.slices()}
    plugin = container_id(product.pod_on(node))

    def outage() -> None:
        cluster.api_server.stop()
        try:
            time.sleep(_API_OUTAGE_S)  # the failure itself takes this time
        finally:
            cluster.api_server.start()
            cluster.control_plane.wait_until_ready()
        cluster.wait_until_nodes_ready()

    _assert_undisturbed(users, outage)

    assert {each["metadata"]["uid"] for each in product.slices()} == slices
    assert container_id(product.pod_on(node)) == plugin


def test_a_pod_deleted_while_the_api_server_is_away_frees_its_gpu(
    users: Users, cluster: RealCluster, node: Node
) -> None:
    users.run("old")
    users.kubectl("delete", "pod", "old", f"--namespace={users.namespace}", "--wait=false")
    cluster.api_server.stop()
    cluster.api_server.start()
    cluster.control_plane.wait_until_ready()

    wait_until_clean(node)


@pytest.mark.parametrize("begun", [1, 4, 8])
def test_a_plugin_killed_among_eight_prepares_serves_all_eight(
    users: Users, product: Product, node: Node, begun: int
) -> None:
    names = [f"user-{number}" for number in range(8)]
    plugin = process_of(container_id(product.pod_on(node)))

    users.create(*names)
    # From outside and without a pause: a prepare takes milliseconds.
    eventually(lambda: len(claims_on(node)) >= begun, until="prepares have begun", every_s=0)
    assert plugin.kill()

    for name in names:
        users.wait_until_ready(name)
    assert len({users.gpu(name) for name in names}) == 8
    users.delete(*names)
    wait_until_clean(node)
    product.restart(node)  # or the kubelet waits longer and longer before it starts it again
