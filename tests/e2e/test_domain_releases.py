"""ComputeDomains that have nodes while the chart is updated, uninstalled and installed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.product.controllers import controllers, refusals, stop_controllers
from tests.e2e.product.earlier import EarlierDomain
from tests.e2e.product.release import NAMESPACE
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.objects import container_id
from tests.e2e.ring.patience import eventually

from nvdra_api.names import daemon_set_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.product.domains import Domains
    from tests.e2e.product.release import Product
    from tests.e2e.ring.kubectl import Manifest


def test_an_update_changes_idle_domains_and_leaves_running_ones_as_they_are(
    domains: Domains,
) -> None:
    names = domains.node_names
    job, idle = domains.form("job", *names[:2]), domains.create("idle")
    before = _running(domains, job)
    old_set = _daemon_set(domains, job)
    _tag_image(domains.product, "second")
    plugins = {pod["metadata"]["uid"] for pod in domains.product.pods()}
    try:
        domains.product.upgrade(
            "--set=image.tag=second", "--set=featureGates.ComputeDomainCliques=false"
        )
        eventually(lambda: _are_gone(domains.product, plugins), until="the old plugins are gone")
        eventually(lambda: _has_image(domains, idle, "second"), until="the idle domain is updated")
        domains.wait_for_nodes("job", names[:2])
        assert _running(domains, job) == before
        assert _daemon_set(domains, job) == old_set
        # What is there goes on as it was formed, and nodes still join.
        domains.start_users("job", names[2])
        domains.wait_for_nodes("job", names[:3])
        domains.start_users("idle", names[3])
        domains.wait_for_nodes("idle", names[3:])
        assert not _cliques_of(domains, idle)
    finally:
        domains.product.upgrade()
        domains.product.wait_until_ready()
    domains.wait_for_nodes("job", names[:3])


def test_domains_outlive_an_uninstalled_chart_also_those_of_an_earlier_driver(
    domains: Domains,
) -> None:
    first, *others, last = domains.node_names
    product = domains.product
    job = domains.form("job", first)
    try:
        stop_controllers(product)
        older = EarlierDomain.made(domains, "older")
        _let_join(domains, older, others)
        before = _running(domains, job) | _running(domains, older.body)

        product.uninstall(keep_namespace=True)

        assert _running(domains, job) | _running(domains, older.body) == before
    finally:
        product.uninstall(keep_namespace=True)  # where something failed before it was
        product.install()
        product.wait_until_ready()
    domains.wait_for_nodes("job", [first])
    domains.wait_for_nodes("older", others)
    # The daemons of the other one go on writing to the API.
    _let_join(domains, older, [*others, last])
    domains.wait_for_nodes("older", [*others, last])
    now = _running(domains, job) | _running(domains, older.body)
    assert now > before
    assert refusals(product, [*controllers(product), *product.pods()]) == []

    domains.kubectl("delete", "pods", "--all", f"--namespace={domains.namespace}")
    domains.delete("job", "older")
    for domain in (job, older.body):
        domains.wait_until_nothing_is_left(domain)


def _are_gone(product: Product, plugins: set[str]) -> bool:
    return not plugins & {pod["metadata"]["uid"] for pod in product.pods()}


def _let_join(domains: Domains, older: EarlierDomain, nodes: Sequence[str]) -> None:
    """Users on those of the nodes that have none yet; all daemons say that they are ready."""
    name = older.body["metadata"]["name"]
    users = domains.kubectl.list("pods", f"--namespace={domains.namespace}")
    present = {pod["metadata"]["name"] for pod in users}
    domains.start_users(name, *(node for node in nodes if f"{name}-on-{node}" not in present))
    older.say_ready(*(domains.daemon_on(older.body, node) for node in nodes))
    for node in nodes:
        domains.kubectl.wait_until_ready(f"{name}-on-{node}", namespace=domains.namespace)
        assert domains.channels_of(f"{name}-on-{node}") == [0]


def _running(domains: Domains, domain: Manifest) -> set[str]:
    """The containers of the domain's daemons and of their users."""
    users = domains.kubectl.list("pods", f"--namespace={domains.namespace}")
    name = domain["metadata"]["name"]
    users = [pod for pod in users if pod["metadata"]["name"].startswith(f"{name}-on-")]
    return {container_id(pod) for pod in (*domains.daemons(domain), *users)}


def _daemon_set(domains: Domains, domain: Manifest) -> Manifest:
    """The pods that its DaemonSet makes."""
    name = daemon_set_name(domain["metadata"]["uid"])
    found = domains.kubectl.get("daemonset", name, namespace=NAMESPACE)
    template: Manifest = found["spec"]["template"]["spec"]
    return template


def _has_image(domains: Domains, domain: Manifest, tag: str) -> bool:
    [container] = _daemon_set(domains, domain)["containers"]
    if not container["image"].endswith(f":{tag}"):
        raise RingError(f"its image is {container['image']}")
    return True


def _cliques_of(domains: Domains, domain: Manifest) -> list[str]:
    found = domains.kubectl.list("computedomaincliques", f"--namespace={NAMESPACE}")
    names = [clique["metadata"]["name"] for clique in found]
    return [name for name in names if name.startswith(domain["metadata"]["uid"])]


def _tag_image(product: Product, tag: str) -> None:
    """Give the driver's image a further tag on every node, as a new version of it."""
    [pod] = controllers(product)[:1]
    image: str = pod["spec"]["containers"][0]["image"]
    for node in product.cluster.nodes:
        node.tag_image(image, f"{image.rpartition(':')[0]}:{tag}")
