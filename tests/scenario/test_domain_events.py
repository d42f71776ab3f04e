"""Events about a domain: one for each transition, with its cause, and none for what is no news."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_kube.resources import EVENTS, PODS
from nvdra_testing.compute_domains import DomainCluster, a_cluster

if TYPE_CHECKING:
    from nvdra_kube.api import Body

pytestmark = pytest.mark.looptime


async def told(it: DomainCluster) -> list[Body]:
    found = await it.everything(EVENTS)
    return sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))


async def reasons(it: DomainCluster) -> list[str]:
    return [event["reason"] for event in await told(it)]


async def until_told(it: DomainCluster, *wanted: str) -> None:
    async def all_told() -> bool:
        return set(wanted) <= set(await reasons(it))

    await it.until(all_told)
    await it.quiet()


async def a_domain_of_one(it: DomainCluster) -> str:
    uid = str((await it.domain())["metadata"]["uid"])
    await it.condition(reason="NoNodesYet")
    await it.join("node-1", uid)
    await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
    await it.condition("Connected", reason="OneClique")
    await until_told(it, "NodesReady", "OneClique")
    return uid


async def test_each_transition_of_a_domain_is_told_once_with_its_cause() -> None:
    async with a_cluster() as it:
        async with it.running():
            uid = await a_domain_of_one(it)
            (pod,) = await it.everything(PODS)
            await it.report(pod, ip="10.0.0.1", ready=False)
            await until_told(it, "NodeNotReady")
        events = await told(it)
        lost = next(event for event in events if event["reason"] == "NodeNotReady")
        assert (lost["type"], lost["count"]) == ("Warning", 1)
        assert lost["message"].startswith("1 of 1 nodes are not ready: node-1: daemon is not ready")
        about = lost["involvedObject"]
        assert (about["kind"], about["name"], about["uid"]) == ("ComputeDomain", "job", uid)
        assert [event["reason"] for event in events if event["type"] == "Warning"] == [
            "NodeNotReady"
        ]


async def test_a_transition_that_repeats_is_counted() -> None:
    async with a_cluster() as it, it.running():
        await a_domain_of_one(it)
        (pod,) = await it.everything(PODS)
        await it.report(pod, ip="10.0.0.1", ready=False)
        await until_told(it, "NodeNotReady")
        await it.report(pod, ip="10.0.0.1", ready=True)

        async def twice() -> bool:
            found = {event["reason"]: event["count"] for event in await told(it)}
            return found.get("NodesReady") == 2

        await it.until(twice)


async def test_a_controller_that_starts_tells_nothing_again() -> None:
    async with a_cluster() as it:
        async with it.running():
            await a_domain_of_one(it)
        before = await told(it)
        async with it.running():
            await it.quiet()
        assert await told(it) == before


async def test_what_a_new_domain_says_first_is_no_event() -> None:
    async with a_cluster() as it, it.running():
        await it.domain()
        await it.condition(reason="NoNodesYet")
        await it.quiet()
        assert await reasons(it) == []
