"""An embedded cluster with a part that cannot work ends, and says which part and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_sim.cluster.embedded import (
    ClusterBroken,
    ClusterNotReady,
    ClusterPlan,
    embedded_cluster,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

PATIENCE_S = 120.0


async def test_a_part_that_ends_takes_the_cluster_with_it(tmp_path: Path) -> None:
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "pods").write_text("in the way")
    with pytest.raises(ClusterBroken, match=r"kubelet node-1 ended: FileExistsError: .*n1/pods"):
        async with embedded_cluster(ClusterPlan(), root=tmp_path) as cluster:
            await cluster.wait_ready(timeout_s=PATIENCE_S)


async def test_an_agent_that_cannot_start_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    root = tmp_path / ("x" * 120)
    root.mkdir()
    with pytest.raises(ClusterNotReady, match=r"(?s)node-1 ended 3 times.*SocketPathTooLong"):
        async with embedded_cluster(ClusterPlan(), root=root) as cluster:
            await cluster.wait_ready(timeout_s=PATIENCE_S)
