"""The controller is killed at each of its writes; the next one gets to the same end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest

from nvdra_api.names import (
    ANNOTATION_RESERVATIONS,
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_COMPUTE_DOMAIN,
    NAMESPACE,
    daemon_set_name,
)
from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.scene import domain_of
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS
from nvdra_testing.compute_domains import CLIQUE, DomainCluster, a_cluster
from nvdra_testing.recorded_api import RecordedApi
from nvdra_testing.replicas import a_replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from nvdra_kube.api import Body
    from nvdra_testing.tapped_server import Arrival

NODES_OF_DOMAIN = ("node-1", "node-2", "node-3")
# Longer than the controller puts a write off.
AT_REST_S = 3.0


async def form(it: DomainCluster) -> None:
    """Users, agents and kubelets do their part, whoever controls."""
    uid = (await it.domain(num_nodes=len(NODES_OF_DOMAIN)))["metadata"]["uid"]
    await it.until(lambda: it.daemon_set(uid))
    for number, node in enumerate(NODES_OF_DOMAIN):
        await it.join(node, uid)
        await it.daemon(node, uid, ip=f"10.0.0.{number + 1}", ready=True)
    await it.condition(reason="NodesReady")


async def tear_down(it: DomainCluster) -> None:
    await it.delete()
    await it.gone(COMPUTE_DOMAINS, "job", namespace="default")


async def mend(it: DomainCluster) -> None:
    """A person deletes objects of a formed domain, and a daemon is replaced."""
    uid = (await it.look())["metadata"]["uid"]
    await it.api.delete(RESOURCE_CLAIM_TEMPLATES, "job-channels", namespace="default")
    await it.api.delete(CLIQUES, f"{uid}.{CLIQUE}", namespace=NAMESPACE)
    (pod,) = [one for one in await it.everything(PODS) if one["spec"]["nodeName"] == "node-2"]
    await it.remove(pod)
    await it.daemon("node-2", uid, ip="10.9.9.9", ready=True)
    await it.api.delete(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)
    await it.until(lambda: it.daemon_set(uid))
    await it.until(it.template)

    async def readdressed() -> bool:
        nodes = (await it.look())["status"]["nodes"]
        return {one["ipAddress"] for one in nodes} == {"10.0.0.1", "10.9.9.9", "10.0.0.3"}

    await it.until(readdressed)
    await it.until(it.cliques)


async def tear_down_in_use(it: DomainCluster) -> None:
    """Jobs still run, and one more comes to a node; daemons end as those of a DaemonSet do."""
    uid = (await it.look())["metadata"]["uid"]
    await it.delete()
    await it.join("node-4", uid)
    while await it.everything(PODS):
        for pod in await it.everything(PODS):
            node = await it.node(pod["spec"]["nodeName"])
            if LABEL_COMPUTE_DOMAIN not in (node["metadata"].get("labels") or {}):
                await it.remove(pod)
        await asyncio.sleep(0.005)
    await it.gone(COMPUTE_DOMAINS, "job", namespace="default")

    async def unlabelled() -> bool:
        return not any(map(domain_of, await it.everything(NODES)))

    await it.until(unlabelled)


async def killed_at(
    it: DomainCluster, write: int, when: Literal["before", "after"], step: Any
) -> bool:
    """Run the step with a controller that dies at this write, then with one that lives.

    Whether the first one got that far.
    """
    dying = RecordedApi(it.api, die_at=write, when=when)
    stepping = asyncio.create_task(step(it))
    async with it.running(api=dying):
        dead = asyncio.create_task(dying.died.wait())
        await asyncio.wait((dead, stepping), return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
    async with it.running():
        await stepping
        await it.quiet(for_s=AT_REST_S)
    return dying.died.is_set()


async def state(it: DomainCluster) -> dict[str, Any]:
    """What counts in the end, without what differs from run to run."""
    found = await it.look()
    uid = found["metadata"]["uid"]
    status = found["status"]
    return {
        "finalizers": found["metadata"]["finalizers"],
        "status": status["status"],
        "nodes": sorted((one["name"], one["status"]) for one in status["nodes"]),
        "indexes": sorted(one["index"] for one in status["nodes"]),
        "reasons": sorted(one["reason"] for one in status["conditions"]),
        "templates": sorted(
            body["metadata"]["name"].replace(uid, "UID")
            for body in await it.everything(RESOURCE_CLAIM_TEMPLATES)
        ),
        "daemon sets": len(await it.everything(DAEMON_SETS)),
        "cliques": [_clique(body, uid) for body in await it.everything(CLIQUES)],
        "pods": sorted(
            str(pod["metadata"]["labels"].get(f"{LABEL_COMPUTE_DOMAIN}.cliqueID"))
            for pod in await it.everything(PODS)
        ),
    }


def _clique(body: Body, uid: str) -> tuple[object, ...]:
    return (
        body["metadata"]["name"].replace(uid, "UID"),
        sorted((one["nodeName"], one["status"]) for one in body["daemons"]),
        sorted(one["index"] for one in body["daemons"]),
        ANNOTATION_RESERVATIONS in body["metadata"]["annotations"],
    )


def kopf_writes(arrival: Arrival) -> bool:
    return arrival.writes and "kopf" in arrival.by


async def _each_write(check: Callable[[int], Awaitable[bool]]) -> int:
    """Check with a controller that dies at its 1st, 2nd, ... write, until none dies any more."""
    for write in range(1, 40):
        if not await check(write):
            return write
    raise AssertionError("the controller never stops writing")


@asynccontextmanager
async def a_formed_domain() -> AsyncIterator[DomainCluster]:
    """With its nodes in it; the controller that did it has ended."""
    async with a_cluster() as it:
        async with it.running():
            await form(it)
            await it.quiet(for_s=AT_REST_S)
        yield it


@pytest.mark.looptime
@pytest.mark.timeout(240)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_domain_forms_whatever_write_the_controller_died_at(
    when: Literal["before", "after"],
) -> None:
    async with a_formed_domain() as it:
        wanted = await state(it)
    assert wanted["indexes"] == [0, 1, 2]

    async def check(write: int) -> bool:
        async with a_cluster() as it:
            died = await killed_at(it, write, when, form)
            assert await state(it) == wanted, f"after dying {when} write {write}"
            return died

    assert await _each_write(check) > 8


@pytest.mark.looptime
@pytest.mark.timeout(240)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_domain_is_mended_whatever_write_the_controller_died_at(
    when: Literal["before", "after"],
) -> None:
    async def check(write: int) -> bool:
        async with a_formed_domain() as it:
            wanted = await state(it)
            died = await killed_at(it, write, when, mend)
            assert await state(it) == wanted, f"after dying {when} write {write}"
            return died

    assert await _each_write(check) > 4


@pytest.mark.looptime
@pytest.mark.timeout(240)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("in_use", [False, True])
async def test_a_domain_goes_whatever_write_the_controller_died_at(
    when: Literal["before", "after"], in_use: bool
) -> None:
    async def check(write: int) -> bool:
        async with a_formed_domain() as it:
            for pod in await it.everything(PODS) if not in_use else ():
                await it.remove(pod)
            died = await killed_at(it, write, when, tear_down_in_use if in_use else tear_down)
            for resource in (RESOURCE_CLAIM_TEMPLATES, DAEMON_SETS, CLIQUES, PODS):
                assert await it.everything(resource) == []
            assert not any(map(domain_of, await it.everything(NODES)))
            return died

    assert await _each_write(check) > 6


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("deleting", [False, True])
async def test_a_domain_gets_and_loses_its_finalizer_though_kopf_died_at_that(
    when: Literal["before", "after"], deleting: bool
) -> None:
    async def step(it: DomainCluster) -> None:
        await form(it)
        for pod in await it.everything(PODS):
            await it.remove(pod)
        await tear_down(it)

    def deadly(arrival: Arrival) -> Literal["", "before", "after"]:
        taken_off = FINALIZER_COMPUTE_DOMAIN not in str(arrival.body)
        return when if kopf_writes(arrival) and taken_off is deleting else ""

    async with a_cluster() as it:
        stepping = asyncio.create_task(step(it))
        async with a_replica(it.store, "first") as first:
            first.line.deadly = deadly
            async with asyncio.timeout(40):
                await first.line.died.wait()
        async with a_replica(it.store, "second"):
            await stepping
        for resource in (RESOURCE_CLAIM_TEMPLATES, DAEMON_SETS, CLIQUES):
            assert await it.everything(resource) == []
        assert not any(map(domain_of, await it.everything(NODES)))


async def test_a_domain_goes_though_kopf_cannot_take_the_finalizer_off() -> None:
    def refused(arrival: Arrival) -> int:
        return 400 if kopf_writes(arrival) else 0

    async with a_cluster() as it, a_replica(it.store) as replica:
        await it.domain()
        await it.condition(reason="NoNodesYet")
        replica.line.refused = refused
        await tear_down(it)
        assert any(one.status == 400 for one in replica.line.writes)
