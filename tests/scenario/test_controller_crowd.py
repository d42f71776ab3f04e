"""What many domains at once cost, with Kopf, and what metrics tell of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
from prometheus_client import generate_latest

from nvdra_kube.resources import NODES
from nvdra_operator.domains.scene import domain_of
from nvdra_operator.resources import COMPUTE_DOMAINS
from nvdra_testing.compute_domains import a_cluster
from nvdra_testing.replicas import Replica, a_replica
from nvdra_testing.stillness import unchanged

if TYPE_CHECKING:
    from nvdra_testing.tapped_server import Arrival

MANY: Final = 50
LIMIT: Final = 5
# Where the machine stalls for seconds, a write is taken for lost and made again.
A_FEW: Final = 5
SWEEPS_APART_S: Final = 2.0


def per_domain(arrivals: list[Arrival], uids: dict[str, str]) -> Counter[str]:
    """Writes by the domain's name; all their objects' names tell it, or its UID."""
    found: Counter[str] = Counter()
    for arrival in arrivals:
        if arrival.writes:
            owner = next((name for name, uid in uids.items() if uid in arrival.name), "")
            found[owner or arrival.name.removesuffix("-channels")] += 1
    return found


def refused(arrivals: list[Arrival]) -> list[str]:
    return [f"{one}: {one.status}" for one in arrivals if one.status >= 400]


def no_lists_but_the_sweepers(arrivals: list[Arrival]) -> bool:
    """It asks for all domains, now and then, where their objects outlast them on a slow day."""
    lists = [one.resource for one in arrivals if one.verb == "list"]
    took_s = arrivals[-1].at_s - arrivals[0].at_s
    return set(lists) <= {"computedomains"} and len(lists) <= 3 + took_s / SWEEPS_APART_S


def series(replica: Replica) -> dict[str, float]:
    text = generate_latest(replica.metrics.registry).decode()
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def quiet(replica: Replica) -> None:
    """Until nobody has asked the server anything for a while."""
    await unchanged(lambda: len(replica.line.arrived), for_s=0.5)


async def test_fifty_domains_at_once_cost_five_writes_each_and_no_more_to_go() -> None:
    async with a_cluster() as it, a_replica(it.store) as replica:
        await it.until(lambda: _ready(replica))
        await quiet(replica)
        replica.line.arrived.clear()
        names = [f"job{number:02}" for number in range(MANY)]
        made = await asyncio.gather(
            *(it.domain(name, template=f"{name}-channels") for name in names)
        )
        uids = {body["metadata"]["name"]: body["metadata"]["uid"] for body in made}
        for name in names:
            await it.condition(reason="NoNodesYet", name=name)
        await quiet(replica)
        making = list(replica.line.arrived)
        replica.line.arrived.clear()
        await asyncio.gather(*map(it.delete, names))
        for name in names:
            await it.gone(COMPUTE_DOMAINS, name, namespace="default")
        await quiet(replica)
        going = list(replica.line.arrived)
        for arrivals in (making, going):
            counted = per_domain(arrivals, uids)
            assert set(counted) == set(names)
            assert counted.total() <= MANY * LIMIT + A_FEW
            assert refused(arrivals) == []
            assert no_lists_but_the_sweepers(arrivals)


async def test_domains_in_use_are_deleted_without_a_list_of_nodes_or_a_conflict() -> None:
    async with a_cluster() as it, a_replica(it.store) as replica:
        await it.until(lambda: _ready(replica))
        for number in range(8):
            name = f"job{number}"
            uid = (await it.domain(name, template=name))["metadata"]["uid"]
            await it.until(lambda uid=uid: it.daemon_set(uid))  # type: ignore[misc]
            for node in ("a", "b"):
                await it.join(f"{name}-{node}", uid)
        for number in range(8):
            # Written last, and late: a write that meets the deletion would be a conflict for Kopf.
            await it.condition("Connected", reason="WaitingForDaemons", name=f"job{number}")
        await quiet(replica)
        replica.line.arrived.clear()
        await asyncio.gather(*(it.delete(f"job{number}") for number in range(8)))
        for number in range(8):
            await it.gone(COMPUTE_DOMAINS, f"job{number}", namespace="default")
        assert not any(map(domain_of, await it.everything(NODES)))
        assert refused(replica.line.arrived) == []
        assert no_lists_but_the_sweepers(replica.line.arrived)
        of_nodes = [one.name for one in replica.line.writes if one.resource == "nodes"]
        assert len(of_nodes) == len(set(of_nodes)) == 16


async def test_metrics_count_domains_nodes_formations_and_calls() -> None:
    async with a_cluster() as it, a_replica(it.store) as replica:
        uid = (await it.domain(num_nodes=2))["metadata"]["uid"]
        await it.condition(reason="WaitingForNodes")
        await it.join("node-1", uid)
        await it.join("node-2", uid)
        await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
        await _until(replica, 'nvidia_dra_compute_domain_nodes{status="Ready"}', 1.0)
        found = series(replica)
        assert found['nvidia_dra_compute_domain_info{status="NotReady"}'] == 1.0
        assert found["nvidia_dra_compute_domain_formation_seconds_count"] == 0.0
        await it.daemon("node-2", uid, ip="10.0.0.2", ready=True)
        await _until(replica, "nvidia_dra_compute_domain_formation_seconds_count", 1.0)
        await _until(replica, 'nvidia_dra_compute_domain_info{status="Ready"}', 1.0)
        await _until(replica, 'nvidia_dra_workqueue_depth{queue="compute-domains"}', 0.0)
        await quiet(replica)
        found = series(replica)
        calls = "nvidia_dra_kube_api_requests_total"
        assert found[f'{calls}{{code="201",resource="daemonsets",verb="create"}}'] == 1.0
        # Kopf puts the finalizer on, we write the status: each of them is counted.
        asked = [one for one in replica.line.writes if one.resource == "computedomains"]
        assert any("kopf" in one.by for one in asked)
        patches = f'{calls}{{code="200",resource="computedomains",verb="patch"}}'
        await _until(replica, patches, len(asked))  # an answer may be on its way yet
        assert found['nvidia_dra_kube_api_request_duration_seconds_count{verb="patch"}'] > 0


@pytest.mark.looptime
async def test_a_domain_is_formed_when_all_that_joined_are_ready() -> None:
    took: list[float] = []
    async with a_cluster() as it:
        async with it.running(formed=took.append):
            uid = (await it.domain())["metadata"]["uid"]
            await it.until(lambda: it.daemon_set(uid))
            await it.join("node-1", uid)
            await it.join("node-2", uid)
            await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
            await it.condition(reason="NodesReady")
            await it.quiet()
            assert took == []
            await it.daemon("node-2", uid, ip="10.0.0.2", ready=True)
            await it.until(lambda: _some(took))
        async with it.running(formed=took.append):
            await it.quiet()
            assert len(took) == 1


async def _ready(replica: Replica) -> bool:
    return replica.program.unready() == ""


async def _some(values: list[float]) -> bool:
    return bool(values)


async def _until(replica: Replica, name: str, value: float) -> None:
    async with asyncio.timeout(40):
        while series(replica).get(name) != value:
            await asyncio.sleep(0.02)
