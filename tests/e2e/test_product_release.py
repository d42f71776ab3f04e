"""The chart's life on a real cluster: installed, upgraded under a running pod, uninstalled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.product.release import NAMESPACE
from tests.e2e.product.user import GpuUser
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.kubectl import is_ready
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from tests.e2e.product.release import Product
    from tests.e2e.ring.kubectl import Kubectl, Manifest


def test_every_node_has_a_ready_plugin_that_published_its_gpus(product: Product) -> None:
    product.wait_until_ready()

    for node in product.cluster.nodes:
        assert len(product.devices(node)) == 8


def test_a_plugin_that_its_kubelet_does_not_find_runs_and_is_not_ready(
    product: Product, kubectl: Kubectl
) -> None:
    elsewhere = "/var/lib/kubelet/not_the_registry"
    product.upgrade(
        "--wait=false", f"--set=kubeletPlugin.kubeletRegistrarDirectoryPath={elsewhere}"
    )
    try:
        pod = eventually(
            lambda: _pod_with_registry(product, elsewhere), until="the new pod has started"
        )
        said = _unready(kubectl, pod)
        after = kubectl.get("pod", pod["metadata"]["name"], namespace=NAMESPACE)
    finally:
        product.upgrade()
        product.wait_until_ready()
    assert "regist" in said
    assert not is_ready(after)


def _pod_with_registry(product: Product, path: str) -> Manifest:
    """A new pod that has started; the old ones serve on, because it does not become ready."""
    for pod in product.pods():
        [container] = pod["spec"]["containers"]
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        [status] = pod["status"].get("containerStatuses") or [{}]
        if path in mounts and status.get("started"):
            return pod
    raise RingError(f"no pod of the plugin that looks in {path} has started")


def _unready(kubectl: Kubectl, pod: Manifest) -> str:
    """What the plugin says it waits for; its /readyz answers 503."""
    name = pod["metadata"]["name"]
    ask = ("curl", "--silent", "--max-time", "5", "localhost:8080/readyz")
    return eventually(
        lambda: kubectl("exec", name, f"--namespace={NAMESPACE}", "--container=gpus", "--", *ask),
        until="the plugin answers",
    )


def test_an_upgrade_leaves_a_running_pod_its_gpu(product: Product, namespace: str) -> None:
    user = GpuUser.running(product, namespace)
    before = user.gpus()
    old = {pod["metadata"]["uid"] for pod in product.pods()}
    try:
        product.upgrade("--set=logVerbosity=6")
        product.wait_until_ready()
        new = {product.pod_on(node)["metadata"]["uid"] for node in product.cluster.nodes}
        other = GpuUser.running(product, namespace, name="other", node=user.node)
        assert not old & new
        assert user.is_undisturbed()
        assert user.gpus() == before
        assert not set(other.gpus()) & set(before)
    finally:
        product.upgrade()
        product.wait_until_ready()


def test_an_uninstalled_chart_leaves_no_object_and_no_slice(product: Product) -> None:
    manifest = product.manifest()
    # Without a plugin, pods of earlier tests that are on their way out would wait for it.
    eventually(
        lambda: not product.kubectl.list("resourceclaims", "--all-namespaces"),
        until="no claims are left",
    )
    try:
        product.uninstall()

        left = product.kubectl(
            "get", "--filename=-", "--ignore-not-found", "--output=name", stdin=manifest
        )
        assert not left
        # The kubelet deletes them when a plugin has been gone for a while.
        eventually(lambda: not product.slices(), until="no slices are left")
        for node in product.cluster.nodes:
            assert "gpu.nvidia.com" not in node.enter("ls", "/var/lib/kubelet/plugins_registry")
            assert not node.enter("ls", "/var/run/cdi")
    finally:
        product.install()


def test_what_the_chart_made_is_all_there_while_it_is_installed(product: Product) -> None:
    found = product.kubectl("get", "--filename=-", "--output=name", stdin=product.manifest())
    kinds = {line.partition("/")[0].partition(".")[0] for line in found.split()}
    assert {"daemonset", "deviceclass", "clusterrole", "validatingadmissionpolicy"} <= kinds
