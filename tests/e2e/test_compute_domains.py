"""ComputeDomains as the chart installs them: objects, rights, a change of leaders, an update."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest
from tests.e2e.product.controllers import controllers, leader, refusals, wait_for_controllers
from tests.e2e.product.release import NAMESPACE
from tests.e2e.ring.errors import CommandFailed

from nvdra_api.names import FINALIZER_COMPUTE_DOMAIN, daemon_set_name

if TYPE_CHECKING:
    from tests.e2e.product.domains import Domains
    from tests.e2e.product.release import Product
    from tests.e2e.ring.kubectl import Kubectl

_PLUGIN_USER: Final = (
    f"system:serviceaccount:{NAMESPACE}:dra-driver-nvidia-gpu-service-account-kubeletplugin"
)


def test_both_replicas_are_ready_and_one_of_them_leads(with_domains: Product) -> None:
    pods = wait_for_controllers(with_domains, 2)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert leader(with_domains).pod["metadata"]["name"] in {pod["metadata"]["name"] for pod in pods}


def test_a_domain_gets_its_objects_and_a_status(
    domains: Domains, kubectl: Kubectl, namespace: str
) -> None:
    domain = domains.create("job")
    assert domain["metadata"]["finalizers"] == [FINALIZER_COMPUTE_DOMAIN]
    assert domain["status"]["status"] == "Ready"
    assert domain["status"]["conditions"]
    name = daemon_set_name(domain["metadata"]["uid"])
    daemons = kubectl.get("daemonset", name, namespace=NAMESPACE)
    [container] = daemons["spec"]["template"]["spec"]["containers"]
    [own] = controllers(domains.product)[0]["spec"]["containers"]
    assert container["image"] == own["image"]
    kubectl.get("resourceclaimtemplate", name, namespace=NAMESPACE)
    kubectl.get("resourceclaimtemplate", "job-channel", namespace=namespace)


def test_a_deleted_domain_leaves_nothing(domains: Domains) -> None:
    domain = domains.create("job")

    domains.delete("job")

    domains.wait_until_nothing_is_left(domain)


def test_a_domain_gets_its_objects_when_the_leader_is_killed(domains: Domains) -> None:
    first = leader(domains.product)
    first.kill()

    domains.create("late")

    assert leader(domains.product).identity != first.identity


def test_nothing_was_refused_to_the_controllers(domains: Domains) -> None:
    domains.create("job")
    assert refusals(domains.product, controllers(domains.product)) == []


def test_a_plugin_may_write_its_own_node_and_no_other(with_domains: Product) -> None:
    own, other = (node.name for node in with_domains.cluster.nodes[:2])
    _label_as_plugin_of(with_domains, own, on=own)
    with pytest.raises(CommandFailed, match="may only write that node"):
        _label_as_plugin_of(with_domains, own, on=other)


def test_one_controller_alone_works_without_a_lease_and_two_again_with_one(
    domains: Domains,
) -> None:
    product = domains.product
    try:
        product.upgrade("--set=controller.replicas=1")
        [alone] = wait_for_controllers(product, 1)
        assert "LEADER_ELECTION_ENABLED" not in json.dumps(alone)
        domains.create("alone")
    finally:
        product.upgrade()
    wait_for_controllers(product, 2)
    domains.create("together")


def _label_as_plugin_of(product: Product, own: str, *, on: str) -> None:
    product.kubectl(
        "patch", "node", on, '--patch={"metadata": {"labels": {"nvdra.test/x": null}}}',
        "--dry-run=server", f"--as={_PLUGIN_USER}", "--as-group=system:serviceaccounts",
        f"--as-user-extra=authentication.kubernetes.io/node-name={own}",
    )  # fmt: skip
