"""A cluster with a controller of ComputeDomains, and a node of it, for tests that ask for them.

A file that wants another cluster, or nodes of another kind, has fixtures of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_testing.compute_domains import DomainCluster, a_cluster
from nvdra_testing.domain_nodes import DomainNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def it() -> AsyncIterator[DomainCluster]:
    async with a_cluster() as cluster, cluster.running():
        yield cluster


@pytest.fixture
def node(it: DomainCluster, tmp_path: Path) -> DomainNode:
    return DomainNode(tmp_path, it)
