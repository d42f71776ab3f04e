"""ComputeDomains as the chart installs them: objects, rights, a change of leaders, an update."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.e2e.injectors.plugin_process import process_of
from tests.e2e.product.release import CONTROLLER, NAMESPACE, PROFILE_LABEL
from tests.e2e.ring.errors import CommandFailed, RingError
from tests.e2e.ring.kubectl import is_ready
from tests.e2e.ring.objects import a_pod, container_id
from tests.e2e.ring.patience import eventually

from nvdra_api.names import (
    CONTROLLER as CONTROLLER_NAME,
)
from nvdra_api.names import (
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_COMPUTE_DOMAIN,
    daemon_set_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.e2e.product.release import Product
    from tests.e2e.ring.kubectl import Kubectl, Manifest

# Unlike those of a user: a test does not wait for 15 s.
_REPLICAS: Final = (
    "--set=resources.computeDomains.enabled=true",
    "--set=controller.replicas=2",
    "--set=controller.leaderElection.leaseDuration=6s",
    "--set=controller.leaderElection.renewDeadline=4s",
    "--set=controller.leaderElection.retryPeriod=1s",
)
_ONE: Final = "--set=resources.computeDomains.enabled=true"
_PLUGIN_USER: Final = (
    f"system:serviceaccount:{NAMESPACE}:dra-driver-nvidia-gpu-service-account-kubeletplugin"
)


@pytest.fixture(scope="module")
def installed(product: Product) -> Iterator[Product]:
    """The driver with compute domains and two controllers."""
    product.upgrade(*_REPLICAS)
    yield product
    product.upgrade()
    product.wait_until_ready()


@pytest.fixture
def domain(installed: Product, kubectl: Kubectl, namespace: str) -> Manifest:
    """A ComputeDomain that the controller has made all objects of."""
    kubectl.create(a_domain("job", namespace=namespace))
    return _complete(kubectl, "job", namespace)


def a_domain(name: str, *, namespace: str) -> Manifest:
    return {
        "apiVersion": "resource.nvidia.com/v1beta1",
        "kind": "ComputeDomain",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"numNodes": 0, "channel": {"resourceClaimTemplate": {"name": f"{name}-channel"}}},
    }


def test_both_replicas_are_ready_and_one_of_them_leads(installed: Product) -> None:
    pods = _controllers(installed)
    assert [is_ready(pod) for pod in pods] == [True, True]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert _leader(installed)["metadata"]["name"] in {pod["metadata"]["name"] for pod in pods}


def test_a_domain_gets_its_objects_and_a_status(
    installed: Product, kubectl: Kubectl, namespace: str, domain: Manifest
) -> None:
    assert domain["metadata"]["finalizers"] == [FINALIZER_COMPUTE_DOMAIN]
    assert domain["status"]["status"] == "Ready"
    assert domain["status"]["conditions"]
    uid = domain["metadata"]["uid"]
    name = daemon_set_name(uid)
    daemons = kubectl.get("daemonset", name, namespace=NAMESPACE)
    [container] = daemons["spec"]["template"]["spec"]["containers"]
    [own] = _controllers(installed)[0]["spec"]["containers"]
    assert container["image"] == own["image"]
    kubectl.get("resourceclaimtemplate", name, namespace=NAMESPACE)
    kubectl.get("resourceclaimtemplate", "job-channel", namespace=namespace)


def test_a_deleted_domain_leaves_nothing(
    kubectl: Kubectl, namespace: str, domain: Manifest
) -> None:
    kubectl("delete", "computedomain", "job", f"--namespace={namespace}", "--timeout=60s")

    label = f"--selector={LABEL_COMPUTE_DOMAIN}={domain['metadata']['uid']}"
    for kind in ("daemonsets", "resourceclaimtemplates", "computedomaincliques", "pods", "nodes"):
        eventually(lambda kind=kind: _none(kubectl, kind, label), until=f"no {kind} are left")  # type: ignore[misc]


def test_the_other_replica_takes_over_when_the_leader_is_killed(
    installed: Product, kubectl: Kubectl, namespace: str
) -> None:
    leader = _leader(installed)
    assert process_of(container_id(leader)).kill()
    kubectl.create(a_domain("late", namespace=namespace))

    _complete(kubectl, "late", namespace)

    assert _leader(installed)["metadata"]["name"] != leader["metadata"]["name"]


def test_nothing_was_refused_to_the_controllers(installed: Product, domain: Manifest) -> None:
    for pod in _controllers(installed):
        said = installed.kubectl.logs(pod["metadata"]["name"], namespace=NAMESPACE)
        assert _refusals(said) == []


def test_a_plugin_may_write_its_own_node_and_no_other(installed: Product) -> None:
    own, other = (node.name for node in installed.cluster.nodes)
    _label_as_plugin_of(installed, own, on=own)
    with pytest.raises(CommandFailed, match="may only write that node"):
        _label_as_plugin_of(installed, own, on=other)


def test_one_controller_alone_works_without_a_lease_and_two_again_with_one(
    installed: Product, kubectl: Kubectl, namespace: str
) -> None:
    try:
        installed.upgrade(_ONE)
        [alone] = eventually(lambda: _settled(installed, 1), until="one controller is left")
        assert "LEADER_ELECTION_ENABLED" not in json.dumps(alone)
        kubectl.create(a_domain("alone", namespace=namespace))
        _complete(kubectl, "alone", namespace)
    finally:
        installed.upgrade(*_REPLICAS)
    eventually(lambda: _settled(installed, 2), until="two controllers are there")
    kubectl.create(a_domain("together", namespace=namespace))
    _complete(kubectl, "together", namespace)


def _complete(kubectl: Kubectl, name: str, namespace: str) -> Manifest:
    def look() -> Manifest:
        found = kubectl.get("computedomain", name, namespace=namespace)
        if not found.get("status", {}).get("conditions"):
            raise RingError(f"{name} is {json.dumps(found)[-1500:]}")
        kubectl.get("resourceclaimtemplate", f"{name}-channel", namespace=namespace)
        kubectl.get("daemonset", daemon_set_name(found["metadata"]["uid"]), namespace=NAMESPACE)
        return found

    return eventually(look, until=f"ComputeDomain {name} is complete", every_s=0.3)


def _controllers(product: Product) -> Sequence[Manifest]:
    found = product.kubectl.list("pods", f"--namespace={NAMESPACE}", CONTROLLER)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def _settled(product: Product, count: int) -> Sequence[Manifest]:
    pods = product.kubectl.list("pods", f"--namespace={NAMESPACE}", CONTROLLER)
    if [is_ready(pod) for pod in pods] != [True] * count:
        raise RingError(f"controllers: {[pod['metadata']['name'] for pod in pods]}")
    return pods


def _leader(product: Product) -> Manifest:
    """The pod that holds the lease."""

    def look() -> Manifest:
        lease: dict[str, Any] = product.kubectl.get("lease", CONTROLLER_NAME, namespace=NAMESPACE)
        holder = lease["spec"].get("holderIdentity") or ""
        for pod in _controllers(product):
            if holder.startswith(pod["metadata"]["name"]):
                return pod
        raise RingError(f"the lease is held by {holder!r}")

    return eventually(look, until="a replica leads")


def _none(kubectl: Kubectl, kind: str, label: str) -> bool:
    left = kubectl.list(kind, "--all-namespaces", label)
    if left:
        raise RingError(f"left: {[each['metadata']['name'] for each in left]}")
    return True


def _label_as_plugin_of(product: Product, own: str, *, on: str) -> None:
    product.kubectl(
        "patch", "node", on, '--patch={"metadata": {"labels": {"nvdra.test/x": null}}}',
        "--dry-run=server", f"--as={_PLUGIN_USER}", "--as-group=system:serviceaccounts",
        f"--as-user-extra=authentication.kubernetes.io/node-name={own}",
    )  # fmt: skip


@pytest.fixture
def with_nvlink(installed: Product) -> Iterator[Product]:
    """Every node has hardware whose NVLinks leave the machine."""
    names = [node.name for node in installed.cluster.nodes]
    label = "--overwrite", f"{PROFILE_LABEL}=gb200"
    installed.kubectl("label", "node", *names, *label)
    try:
        installed.restart()
        yield installed
    finally:
        installed.kubectl("label", "node", *names, f"{PROFILE_LABEL}-")
        installed.restart()


def test_pods_of_a_domain_get_their_channel_and_the_domain_its_nodes(
    with_nvlink: Product, kubectl: Kubectl, namespace: str, domain: Manifest
) -> None:
    names = [node.name for node in with_nvlink.cluster.nodes]
    kubectl.create(*(a_user(f"on-{name}", namespace=namespace, node=name) for name in names))
    for name in names:
        kubectl.wait_until_ready(f"on-{name}", namespace=namespace)
        assert "channel0" in kubectl.logs(f"on-{name}", namespace=namespace)

    def ready() -> bool:
        nodes = kubectl.get("computedomain", "job", namespace=namespace)["status"]["nodes"]
        if {node["name"]: node["status"] for node in nodes} != dict.fromkeys(names, "Ready"):
            raise RingError(f"nodes are {json.dumps(nodes)}")
        return True

    eventually(ready, until="every node of the domain is Ready")
    kubectl("delete", "pods", "--all", f"--namespace={namespace}", "--timeout=120s")
    label = f"--selector={LABEL_COMPUTE_DOMAIN}={domain['metadata']['uid']}"
    for kind in ("nodes", "pods", "computedomaincliques"):
        eventually(lambda kind=kind: _none(kubectl, kind, label), until=f"no {kind} are left")  # type: ignore[misc]
    for pod in (*_controllers(with_nvlink), *with_nvlink.pods()):
        said = kubectl(
            "logs", pod["metadata"]["name"], f"--namespace={NAMESPACE}", "--all-containers"
        )
        assert _refusals(said) == []


def _refusals(log: str) -> list[str]:
    """What was refused for lack of rights, not because a namespace was being deleted."""
    refused = [line for line in log.splitlines() if "forbidden" in line.lower()]
    return [line for line in refused if "being terminated" not in line]


def a_user(name: str, *, namespace: str, node: str) -> Manifest:
    """A pod with a channel of the domain `job`."""
    command = "ls /dev/nvidia-caps-imex-channels; trap 'exit 0' TERM; sleep 9999 & wait"
    pod = a_pod(name, "sh", "-c", command, namespace=namespace, node=node)
    pod["spec"]["containers"][0]["resources"] = {"claims": [{"name": "channel"}]}
    pod["spec"]["resourceClaims"] = [
        {"name": "channel", "resourceClaimTemplateName": "job-channel"}
    ]
    return pod
