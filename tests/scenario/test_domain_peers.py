"""The watch that tells a daemon of its peers, and what the API does to it meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from nvdra_api.names import NAMESPACE
from nvdra_kube.informer import Informer
from nvdra_nodeagent.computedomain.directories import DomainDirectories
from nvdra_nodeagent.computedomain.peer_file import PeerFile
from nvdra_nodeagent.computedomain.peers import PeerWatch
from nvdra_nodeagent.computedomain.resources import CLIQUES
from nvdra_nodeagent.steps.domain_dir import DomainDirStep
from nvdra_testing.agent import until
from nvdra_testing.compute_domains import DomainCluster, a_cluster

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_kube.api import Body

STEP = DomainDirStep(
    claim_uid="claim",
    device="daemon-0",
    domain="0d9c6b7a-0000-4000-8000-000000000001",
    clique="clique.1",
    name="job",
    namespace="default",
    home=NAMESPACE,
    max_nodes=18,
    protocol="1",
)


class SlowFile(PeerFile):
    """Takes its time, as a disk may: until `go` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(DomainDirectories(root, node="node-1", boot_id="b"), STEP, node="node-1")
        self.go = threading.Event()
        self.seen: list[str] = []

    def bring(self, body: Body) -> None:
        self.seen.append(body["metadata"]["name"])
        self.go.wait(30)


async def a_clique(it: DomainCluster, name: str) -> None:
    await it.api.create(CLIQUES, {"metadata": {"name": name, "namespace": NAMESPACE}})


async def test_a_clique_that_goes_while_its_members_are_written_does_not_end_the_watch(
    tmp_path: Path,
) -> None:
    async with a_cluster() as it:
        await a_clique(it, "first")
        file, informer = SlowFile(tmp_path), Informer(it.api, CLIQUES, namespace=NAMESPACE)
        watch = asyncio.create_task(PeerWatch(informer, file, STEP).run())
        await until(lambda: file.seen == ["first"], or_done=watch)
        await it.api.delete(CLIQUES, "first", namespace=NAMESPACE)
        await until(lambda: not informer.items, or_done=watch)
        file.go.set()
        await a_clique(it, "second")
        await until(lambda: file.seen[-1] == "second", or_done=watch)
        assert not watch.done()
        watch.cancel()
        await asyncio.wait([watch])
