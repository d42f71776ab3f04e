"""The chart's life on a real cluster: installed, upgraded under a running pod, uninstalled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.ring.kubectl import is_ready

if TYPE_CHECKING:
    from tests.e2e.product.release import Product


def test_every_node_has_a_ready_plugin_that_published_its_gpus(product: Product) -> None:
    for node in product.cluster.nodes:
        assert is_ready(product.pod_on(node))
        assert len(product.devices(node)) == 8
