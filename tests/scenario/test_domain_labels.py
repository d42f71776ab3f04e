"""A node whose domain label somebody took off, while a workload of the domain is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_api.names import LABEL_COMPUTE_DOMAIN
from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIMS
from nvdra_nodeagent.errors import NodeFault
from nvdra_nodeagent.steps.node_label import NodeLabelHandler, NodeLabelStep
from nvdra_testing.agent import until
from nvdra_testing.domain_claims import a_daemon, a_made_domain, a_released_workload

if TYPE_CHECKING:
    from collections.abc import Collection

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.computedomain.agent import DomainAgent
    from nvdra_testing.domain_nodes import DomainNode

DOMAIN = "0d9c6b7a-0000-4000-8000-000000000001"


async def a_daemon_that_is_minded(agent: DomainAgent, node: DomainNode, uid: str) -> ClaimRef:
    """Whoever minds the label has seen the daemon: only so its end is news."""
    _, daemon = await a_released_workload(agent, node, uid)
    await until(lambda: uid in agent.label._served)
    return daemon


async def take_label_off(node: DomainNode) -> None:
    bare = {"metadata": {"labels": {LABEL_COMPUTE_DOMAIN: None}}}
    await node.it.api.patch(NODES, node.name, bare)


async def test_a_label_that_a_person_took_off_comes_back_when_the_daemon_went(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        daemon = await a_daemon_that_is_minded(agent, node, uid)
        await take_label_off(node)
        await agent.claims.unprepare([daemon])

        async def is_back() -> bool:
            return await node.label() == uid

        await node.it.until(is_back)


async def test_a_node_object_that_was_made_anew_is_brought_into_the_domain_again(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        daemon = await a_daemon_that_is_minded(agent, node, uid)
        await node.it.api.delete(NODES, node.name)
        await agent.claims.unprepare([daemon])
        await node.it.node(node.name)

        async def is_back() -> bool:
            agent.label.look_again()
            return await node.label() == uid

        await node.it.until(is_back)


async def test_a_domain_that_is_being_deleted_does_not_get_its_nodes_back(
    node: DomainNode,
) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        workload, daemon = await a_released_workload(agent, node, uid)
        await node.it.delete()

        async def has_left() -> bool:
            return await node.label() is None

        await node.it.until(has_left)
        node.it.recorded.writes.clear()
        await agent.claims.unprepare([daemon])
        await node.it.quiet()
        assert not [write for write in node.it.writes if write.startswith("patch nodes")]
        assert await agent.claims.unprepare([workload]) == {workload.uid: None}


async def test_a_daemon_that_is_replaced_costs_no_write_to_the_node(node: DomainNode) -> None:
    uid = await a_made_domain(node.it)
    async with node.running() as agent:
        _, daemon = await a_released_workload(agent, node, uid)
        await node.it.quiet()
        node.it.recorded.writes.clear()
        await agent.claims.unprepare([daemon])
        for pod in await node.it.everything(PODS):
            await node.it.remove(pod)
        await node.it.api.delete(RESOURCE_CLAIMS, daemon.name, namespace=daemon.namespace)
        await a_daemon(agent, node, uid, ip="10.0.0.2")
        await node.it.quiet()
        assert not [write for write in node.it.writes if write.startswith("patch nodes")]


class Marks:
    """`NodeMarks` of which only the label is there."""

    def __init__(self) -> None:
        self.label = ""
        self.asked = 0
        self.failing: Exception | None = None

    def put(self, domain: str, clique: str) -> None:
        self.label = domain

    def is_put(self, domain: str, clique: str) -> bool:
        self.asked += 1
        if self.failing:
            raise self.failing
        return self.label == domain

    def remove(self, domain: str) -> None:
        self.label = ""

    def remove_unless(self, domains: set[str]) -> None:
        self.label = ""


def a_joined_node(
    *, trust_s: float, doubtful: Collection[str] = ()
) -> tuple[NodeLabelHandler, NodeLabelStep, Marks]:
    marks = Marks()
    handler = NodeLabelHandler(
        marks,
        domains_of_others=lambda _: set(),
        is_doubtful=lambda domain: domain in doubtful,
        trust_s=trust_s,
    )
    step = NodeLabelStep("claim-1", "channel-0", DOMAIN, "")
    handler.apply(step)
    return handler, step, marks


def test_a_claim_that_waits_notices_that_the_label_went() -> None:
    handler, step, marks = a_joined_node(trust_s=0.0)
    assert handler.holds(step, {})
    marks.label = ""
    assert not handler.holds(step, {})


def test_a_claim_that_waits_does_not_ask_all_the_time() -> None:
    handler, step, marks = a_joined_node(trust_s=60.0)
    assert all(handler.holds(step, {}) for _ in range(100))
    assert marks.asked == 0


def test_a_label_that_could_not_be_looked_at_is_looked_at_again() -> None:
    """The Node object is made anew only after the daemon went."""
    doubtful = {DOMAIN}
    handler, step, marks = a_joined_node(trust_s=60.0, doubtful=doubtful)
    marks.label, marks.failing = "", NodeFault("NodeNotFound", "it is not there")
    with pytest.raises(NodeFault):
        handler.holds(step, {})
    doubtful.clear()
    marks.failing = None
    assert not handler.holds(step, {})
