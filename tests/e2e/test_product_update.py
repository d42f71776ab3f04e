"""A new version of the driver under load: the chart is upgraded while pods come and go."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.e2e.product.user import GpuUser
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.objects import a_gpu_pod, a_gpu_template
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.product.release import Product
    from tests.e2e.ring.kubectl import Kubectl
    from tests.e2e.ring.node import Node


def test_an_update_under_load_fails_no_claim_and_keeps_gpus_and_slices(
    product: Product, kubectl: Kubectl, namespace: str
) -> None:
    users = [
        GpuUser.running(product, namespace, name=f"user-{node.name}", node=node.name)
        for node in product.cluster.nodes
    ]
    before = [user.gpus() for user in users]
    slices = _versions(product)
    old = {pod["metadata"]["uid"] for pod in product.pods()}
    try:
        with _churning(product, namespace) as ended:
            product.upgrade("--set=kubeletPlugin.podAnnotations.round=second")
            eventually(lambda: _gone(product, old), until="the old pods are gone")
            _wait_for_more(ended, 4)
        assert set(ended) == {"Succeeded"}
        assert _complaints(kubectl, namespace) == []
        assert _versions(product) == slices
        assert [user.gpus() for user in users] == before
        assert all(user.is_undisturbed() for user in users)
        for node in product.cluster.nodes:
            eventually(
                lambda node=node: _is_alone(product, node),  # type: ignore[misc]
                until=f"{node.name} has the socket of the new pod only",
            )
    finally:
        product.upgrade()
        product.wait_until_ready()


@contextmanager
def _churning(product: Product, namespace: str) -> Iterator[list[str]]:
    """Pods with a GPU each come and go on every node, from before until after the body; yields
    the phases in which they have ended so far."""
    product.kubectl.apply(a_gpu_template(namespace=namespace))
    ended: list[str] = []
    over = threading.Event()

    def churn(node: str) -> None:
        for turn in itertools.count():
            if over.is_set():
                return
            ended.append(_run_pod(product.kubectl, f"{node}-{turn}", namespace, node))

    with ThreadPoolExecutor() as threads:
        loops = [threads.submit(churn, node.name) for node in product.cluster.nodes]
        try:
            _wait_for_more(ended, len(loops))
            yield ended
        finally:
            over.set()
    for loop in loops:
        loop.result()


def _run_pod(kubectl: Kubectl, name: str, namespace: str, node: str) -> str:
    pod = a_gpu_pod(name, "nvidia-smi", "-L", namespace=namespace, node=node)
    kubectl.create(pod)

    def look() -> str:
        phase = str(kubectl.get("pod", name, namespace=namespace)["status"].get("phase"))
        if phase not in ("Succeeded", "Failed"):
            raise RingError(f"{name} is {phase}")
        return phase

    phase = eventually(look, until=f"{name} has ended", every_s=0.3)
    kubectl.delete(pod)
    return phase


def _wait_for_more(ended: list[str], count: int) -> None:
    goal = len(ended) + count
    eventually(lambda: len(ended) >= goal, until=f"{count} more pods have ended", every_s=0.3)


def _gone(product: Product, uids: set[str]) -> bool:
    left = uids & {pod["metadata"]["uid"] for pod in product.pods()}
    if left:
        raise RingError(f"still there: {left}")
    return True


def _is_alone(product: Product, node: Node) -> bool:
    sockets = node.enter("ls", "/var/lib/kubelet/plugins_registry").split()
    uid = product.pod_on(node)["metadata"]["uid"]
    if [uid in socket for socket in sockets] == [True]:
        return True
    raise RingError(f"{node.name} has the sockets {sockets}; its pod is {uid}")


def _versions(product: Product) -> set[tuple[str, str]]:
    """What changes with every write of a slice."""
    metas = [each["metadata"] for each in product.slices()]
    return {(meta["uid"], meta["resourceVersion"]) for meta in metas}


def _complaints(kubectl: Kubectl, namespace: str) -> list[str]:
    events = kubectl.list("events", f"--namespace={namespace}")
    return [event["message"] for event in events if "DynamicResources" in event["reason"]]
