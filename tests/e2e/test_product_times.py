"""What a GPU costs a pod in time: measured and told, beside the same pod without a claim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.product.stopwatch import time_pods
from tests.e2e.ring.objects import a_gpu_pod, a_gpu_template, a_pod

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.product.release import Product

_PODS = 20


def test_pods_in_a_row_get_a_gpu_each_and_their_times_are_told(
    product: Product, namespace: str, say: Callable[[str], None]
) -> None:
    kubeconfig = product.cluster.kubeconfig
    stay = ("sleep", "infinity")
    product.kubectl.create(a_gpu_template(namespace=namespace))

    bare = time_pods(kubeconfig, lambda name: a_pod(name, *stay, namespace=namespace), count=_PODS)
    claiming = time_pods(
        kubeconfig, lambda name: a_gpu_pod(name, *stay, namespace=namespace), count=_PODS
    )

    say(f"pod created -> Running without a claim: {bare}")
    say(f"pod created -> Running with a GPU:      {claiming}")
    assert len(bare.seconds) == len(claiming.seconds) == _PODS
