"""Fifty agents and one real API server: all is published, once, and then there is quiet."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.bench.production import production_python
from tests.e2e.injectors.pool import GPUS, AgentPool, a_pool
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.ring.cluster import RealCluster

_SIZE = 50
_QUIET_S = 20.0
"""How long the agents are watched for calls they need not make."""


@pytest.fixture(scope="module")
def pool(cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentPool]:
    """All started at once, published and answering."""
    python = production_python(tmp_path_factory.mktemp("python"))
    with a_pool(cluster, python=python, size=_SIZE) as started:
        started.start()
        started.wait_published()
        started.wait_answering()
        yield started


def _identities(pool: AgentPool) -> set[tuple[str, str]]:
    """Changes with every write of a slice."""
    return {(s["metadata"]["uid"], s["metadata"]["resourceVersion"]) for s in pool.slices()}


def test_every_node_has_one_slice_with_all_its_gpus(pool: AgentPool) -> None:
    found = {each["spec"]["nodeName"]: len(each["spec"]["devices"]) for each in pool.slices()}

    assert found == dict.fromkeys(pool.nodes, GPUS)
    assert len(pool.slices()) == _SIZE


def test_no_two_gpus_of_the_pool_have_one_uuid(pool: AgentPool) -> None:
    uuids = Counter(
        device["attributes"]["uuid"]["string"]
        for each in pool.slices()
        for device in each["spec"]["devices"]
    )

    assert uuids.total() == len(uuids) == _SIZE * GPUS


def test_the_storm_writes_each_slice_once(pool: AgentPool) -> None:
    eventually(lambda: pool.calls().writes >= _SIZE, until="all writes are counted")

    calls = pool.calls()
    assert calls.writes - calls.lost <= _SIZE
    assert calls.refused == 0


def test_an_agent_that_has_published_is_quiet(pool: AgentPool) -> None:
    slices, before = _identities(pool), pool.calls()

    time.sleep(_QUIET_S)  # the absence of calls has no condition to wait for

    made = pool.calls() - before
    assert made.writes == 0, made.by_verb()
    assert _identities(pool) == slices
    # Watches are opened anew every few minutes; nothing else is asked.
    assert {verb for verb, _ in made.made} <= {"watch"}, made.by_verb()


def test_slices_that_were_all_deleted_come_back_once(pool: AgentPool) -> None:
    before, old = pool.calls(), _identities(pool)

    pool.kubectl("delete", "resourceslices", *(s["metadata"]["name"] for s in pool.slices()))
    pool.wait_published()

    assert _identities(pool).isdisjoint(old)
    # Counted when the answer has been read, a moment after the slice can be seen.
    eventually(lambda: (pool.calls() - before).writes >= _SIZE, until="all writes are counted")
    made = pool.calls() - before
    assert made.writes - made.lost <= _SIZE


def test_agents_that_start_again_write_nothing(pool: AgentPool) -> None:
    slices = _identities(pool)
    some = range(5)

    for number in some:
        pool.agents[number].restart()
    pool.wait_answering()

    def have_looked() -> bool:
        return pool.calls(some).made["list", "resourceslices"] >= len(some)

    eventually(have_looked, until="they have looked")
    assert pool.calls(some).writes == 0
    assert _identities(pool) == slices
