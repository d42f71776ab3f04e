"""Watching the members of a clique for its daemon, whatever becomes of clique and directory."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from nvdra_api.names import NAMESPACE
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.record import Record, StepEntry
from nvdra_nodeagent.computedomain.directories import DomainDirectories
from nvdra_nodeagent.computedomain.peer_file import PeerFile, peers_of
from nvdra_nodeagent.computedomain.peers import PeerKeeper
from nvdra_operator.resources import CLIQUES
from nvdra_testing.agent import until
from nvdra_testing.compute_domains import a_cluster
from nvdra_testing.domain_claims import GB200_CLIQUE
from nvdra_testing.domain_nodes import BOOT
from nvdra_testing.domain_steps import DOMAIN, a_domain_dir

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_kube.api import Body
    from nvdra_testing.compute_domains import DomainCluster

NAME = f"{DOMAIN}.{GB200_CLIQUE}"
STEP = a_domain_dir("daemon", domain=DOMAIN, clique=GB200_CLIQUE, home=NAMESPACE)
OWN = {"nodeName": "node-1", "ipAddress": "10.0.0.1", "index": 0, "cliqueID": GB200_CLIQUE}


def a_clique(*daemons: Body) -> Body:
    return {
        "apiVersion": CLIQUES.api_version,
        "kind": CLIQUES.kind,
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "daemons": list(daemons),
    }


class SlowDirectories(DomainDirectories):
    """A disk on which writing takes as long as the test wants."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, node="node-1", boot_id=BOOT)
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked = 0

    def peers(self, domain: str) -> Body:
        self.asked += 1
        self.go_on.wait(20)
        return dict(super().peers(domain))


@pytest.fixture
async def it() -> AsyncIterator[DomainCluster]:
    async with a_cluster() as cluster:
        yield cluster


@asynccontextmanager
async def keeping(
    it: DomainCluster, directories: DomainDirectories
) -> AsyncIterator[tuple[PeerKeeper, asyncio.Task[None]]]:
    """Tells the one daemon of the node, whose claim is prepared."""
    record = Record(
        claim=ClaimRef(namespace=NAMESPACE, name="daemon", uid=STEP.claim_uid),
        boot_id=BOOT,
        allocation="",
        devices=(),
        steps=(StepEntry(STEP),),
    )
    keeper = PeerKeeper(it.api, directories, records=lambda: (record,), node="node-1")
    task = asyncio.create_task(keeper.run(), name="keeper")
    try:
        yield keeper, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_clique_that_goes_while_its_members_are_written_harms_nobody(
    it: DomainCluster, tmp_path: Path
) -> None:
    directories = SlowDirectories(tmp_path)
    directories.occupy(STEP)
    async with keeping(it, directories) as (keeper, task):
        directories.go_on.clear()
        await it.api.create(CLIQUES, a_clique(OWN), namespace=NAMESPACE)
        await until(lambda: directories.asked)
        await it.api.delete(CLIQUES, NAME, namespace=NAMESPACE)
        (watch,) = keeper._watches.values()
        await until(lambda: not watch._informer.items)
        directories.go_on.set()
        other = {**OWN, "nodeName": "node-2", "ipAddress": "10.0.0.2", "index": 1}
        await it.api.create(CLIQUES, a_clique(OWN, other), namespace=NAMESPACE)
        await until(lambda: len(directories.peers(DOMAIN).get("peers", ())) == 2, or_done=task)


async def test_a_directory_that_is_not_the_daemons_any_more_is_left_alone(
    it: DomainCluster, tmp_path: Path
) -> None:
    directories = SlowDirectories(tmp_path)
    directories.occupy(STEP)
    await it.api.create(CLIQUES, a_clique(OWN), namespace=NAMESPACE)
    async with keeping(it, directories) as (keeper, task):
        await until(lambda: directories.peers(DOMAIN), or_done=task)
        directories.vacate(STEP)
        asked = directories.asked
        keeper.look_again()
        await until(lambda: directories.asked > asked)
        assert not directories.path(DOMAIN).exists()


def test_members_are_those_with_an_address_in_the_order_of_their_indices() -> None:
    entries = (
        {"nodeName": "b", "ipAddress": "10.0.0.2", "index": 1},
        {"nodeName": "a", "ipAddress": "10.0.0.1"},
        {"nodeName": "reserved", "index": 2},
    )
    found = peers_of(a_clique(*entries), STEP, node="b")
    assert found == {
        "ownIndex": 1,
        "peers": [
            {"node": "a", "ip": "10.0.0.1", "index": 0},
            {"node": "b", "ip": "10.0.0.2", "index": 1},
        ],
        "total": 3,
    }


def test_of_the_status_only_members_of_the_own_clique_are_peers_and_all_are_counted() -> None:
    step = a_domain_dir("daemon", domain=DOMAIN, clique="x.1", members="status")
    nodes = [
        {"name": "a", "cliqueID": "x.1", "ipAddress": "10.0.0.1", "index": 0},
        {"name": "b", "cliqueID": "x.2", "ipAddress": "10.0.0.2", "index": 0},
        {"name": "c", "cliqueID": "", "ipAddress": "10.0.0.3", "index": -1},
    ]
    found = peers_of({"status": {"nodes": nodes}}, step, node="a")
    assert (found["total"], [each["node"] for each in found["peers"]]) == (3, ["a"])


def test_the_generation_grows_also_over_a_file_that_was_lost(tmp_path: Path) -> None:
    directories = DomainDirectories(tmp_path, node="node-1", boot_id=BOOT)
    directories.occupy(STEP)
    file = PeerFile(directories, STEP, node="node-1")
    file.bring(a_clique(OWN))
    file.bring(a_clique(OWN))
    assert directories.peers(DOMAIN)["generation"] == 1
    directories.occupy(STEP)
    file.bring(a_clique(OWN))
    assert directories.peers(DOMAIN)["generation"] == 2
