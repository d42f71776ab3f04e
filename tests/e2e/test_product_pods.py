"""What pods meet on real nodes: hooks that ran, words about bad configs, GPUs over reboots."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.e2e.product.controllers import refusals
from tests.e2e.product.release import NAMESPACE
from tests.e2e.product.user import GpuUser
from tests.e2e.ring.errors import CommandFailed, RingError
from tests.e2e.ring.objects import a_gpu_pod, a_gpu_template, a_pod, container_id
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from tests.e2e.product.release import Product
    from tests.e2e.ring.kubectl import Kubectl, Manifest

_CALLS = "nvidia_dra_kube_api_requests_total{"
_BAD_CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "an unknown field": ({"kind": "GpuConfig", "sharing": {"strateggy": "MPS"}}, "strateggy"),
    "a gate that is off": ({"kind": "GpuConfig", "sharing": {"strategy": "MPS"}}, "MPSSupport"),
    "an unknown kind": ({"kind": "GpuConfigs"}, "GpuConfigs"),
}


@pytest.mark.parametrize("case", _BAD_CONFIGS)
def test_a_bad_config_is_named_in_an_event_of_the_pod(
    product: Product, kubectl: Kubectl, namespace: str, case: str
) -> None:
    parameters, named = _BAD_CONFIGS[case]
    kubectl.create(_template_with(parameters, namespace=namespace))
    kubectl.create(a_gpu_pod("user", "nvidia-smi", "-L", namespace=namespace))

    def told() -> str:
        """Other words may have come before, as when the driver had just been restarted."""
        messages = _messages(kubectl, namespace, "FailedPrepareDynamicResources")
        if message := next((said for said in messages if named in said), ""):
            return message
        raise RingError(f"its events say {messages}")

    message = eventually(told, until="the kubelet has told why the pod does not start")

    assert "error preparing devices" in message
    assert kubectl.get("pod", "user", namespace=namespace)["status"]["phase"] == "Pending"


def _template_with(parameters: dict[str, object], *, namespace: str) -> Manifest:
    template = a_gpu_template(namespace=namespace)
    given = {"apiVersion": "resource.nvidia.com/v1beta1", **parameters}
    config = {"opaque": {"driver": "gpu.nvidia.com", "parameters": given}}
    template["spec"]["spec"]["devices"]["config"] = [config]
    return template


def _messages(kubectl: Kubectl, namespace: str, reason: str) -> list[str]:
    events = kubectl.list("events", f"--namespace={namespace}", f"--field-selector=reason={reason}")
    return [event["message"] for event in events]


def test_the_hooks_of_the_container_runtime_made_the_driver_usable(
    product: Product, namespace: str
) -> None:
    user = GpuUser.running(product, namespace)
    library = user.run("sh", "-c", "find / -xdev -name libcuda.so.1 2>/dev/null").split()
    assert library
    # The plain name is a link that only a hook makes; the linker's cache is another's work.
    link = f"{library[0].removesuffix('.1')}"
    assert user.run("readlink", "-f", link).strip().startswith(f"{link}.")
    # The image has no cache. Simulated libraries are not ELF, so none of them is listed in it.
    assert user.run("ls", "/etc/ld.so.cache")
    configured = user.run("sh", "-c", "cat /etc/ld.so.conf.d/*").split()
    assert library[0].rpartition("/")[0] in configured, configured


def test_a_pod_has_its_gpu_again_after_a_reboot_of_its_node(
    product: Product, namespace: str
) -> None:
    node = product.cluster.nodes[1]
    user = GpuUser.running(product, namespace, node=node.name)
    before, uid = user.gpus(), user.claim()["metadata"]["uid"]
    plugin = container_id(product.pod_on(node))

    node.reboot()

    user.wait_until_restarted()
    assert user.gpus() == before
    assert uid in node.enter("ls", "/var/run/cdi")
    eventually(
        lambda: container_id(product.pod_on(node)) not in ("", plugin),
        until="the plugin is seen in a new container",
    )
    product.wait_until_ready(node)


def test_a_pod_that_counts_gpus_as_for_a_device_plugin_gets_them(
    product: Product, kubectl: Kubectl, namespace: str
) -> None:
    pod = a_pod("counts", "nvidia-smi", "-L", namespace=namespace)
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 2}}
    kubectl.create(pod)

    kubectl.wait_for_phase("Succeeded", "counts", namespace=namespace)

    seen = re.findall(r"GPU-[0-9a-f-]{36}", kubectl.logs("counts", namespace=namespace))
    assert len(set(seen)) == 2
    assert set(seen) <= set(product.devices().values())


def test_a_claim_is_undone_on_the_node_when_its_pod_is_gone(
    product: Product, kubectl: Kubectl, namespace: str
) -> None:
    user = GpuUser.running(product, namespace, node="node-1")
    node, uid = product.cluster.nodes[0], user.claim()["metadata"]["uid"]
    assert uid in node.enter("ls", "/var/run/cdi")

    kubectl.delete(user.now())

    eventually(lambda: uid not in node.enter("ls", "/var/run/cdi"), until="the CDI file is gone")


def test_the_plugin_has_every_right_that_it_uses(
    product: Product, kubectl: Kubectl, namespace: str
) -> None:
    # An API server that has just been started refuses for a moment what it has no rules for yet.
    product.restart("node-1")
    user = GpuUser.running(product, namespace, node="node-1")
    kubectl.delete(user.now())
    plugin = product.pod_on("node-1")

    said = kubectl("exec", plugin["metadata"]["name"], f"--namespace={NAMESPACE}",
                   "--container=gpus", "--",
                   "curl", "--silent", "--fail", "localhost:8080/metrics")  # fmt: skip

    calls = [line for line in said.splitlines() if line.startswith(_CALLS)]
    assert calls
    # Events are refused also in a namespace that is going; the log tells one from the other.
    denied = [line for line in calls if re.search(r'code="40[13]"', line)]
    assert [line for line in denied if 'resource="events"' not in line] == []
    assert refusals(product, [plugin]) == []


def test_a_plugin_may_not_write_the_slices_of_another_node(
    product: Product, kubectl: Kubectl
) -> None:
    user = f"system:serviceaccount:{NAMESPACE}:" + _account(product)
    [found] = [each for each in product.slices() if each["spec"]["nodeName"] == "node-2"][:1]
    name = found["metadata"]["name"]
    delete = ("delete", "resourceslice", name, "--dry-run=server", f"--as={user}")
    node = "--as-user-extra=authentication.kubernetes.io/node-name="

    assert name in kubectl(*delete, f"{node}node-2")
    with pytest.raises(CommandFailed, match="may only write ResourceSlices of that node"):
        kubectl(*delete, f"{node}node-1")
    with pytest.raises(CommandFailed, match="the request comes with no node"):
        kubectl(*delete)


def _account(product: Product) -> str:
    return str(product.pod_on("node-1")["spec"]["serviceAccountName"])
