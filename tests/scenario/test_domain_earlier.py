"""Domains whose DaemonSet an earlier driver made: their daemons tell the API, not the node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from nvdra_api.names import LABEL_COMPUTE_DOMAIN, NAMESPACE
from nvdra_kube.resources import PODS
from nvdra_nodeagent.computedomain.readiness import ASKED_AGAIN_S
from nvdra_nodeagent.errors import AgentError
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS
from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_testing.agent import until
from nvdra_testing.compute_domains import a_cluster
from nvdra_testing.domain_claims import a_waiting_workload, prepare
from nvdra_testing.domain_nodes import DomainNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_kube.api import Body
    from nvdra_nodeagent.computedomain.agent import DomainAgent
    from nvdra_testing.compute_domains import DomainCluster

CLIQUE = "6e766472-6120-5369-6d75-6c6174656420.1"


@pytest.fixture
async def it() -> AsyncIterator[DomainCluster]:
    async with a_cluster() as cluster:  # no controller: nothing here may need one
        yield cluster


async def an_earlier_pod(it: DomainCluster, uid: str) -> Body:
    """As that driver's template makes it: a label, and not one annotation."""
    body = {
        "metadata": {
            "name": f"computedomain-daemon-{uid}-abcde",
            "namespace": NAMESPACE,
            "labels": {LABEL_COMPUTE_DOMAIN: uid},
        },
        "spec": {"containers": [{"name": "compute-domain-daemon", "image": "earlier"}]},
    }
    return await it.api.create(PODS, body, namespace=NAMESPACE)


async def say_in_clique(it: DomainCluster, uid: str) -> None:
    entry = {"nodeName": "node-1", "ipAddress": "10.0.0.1", "cliqueID": CLIQUE, "index": 0}
    body = {
        "apiVersion": CLIQUES.api_version,
        "kind": CLIQUES.kind,
        "metadata": {"name": f"{uid}.{CLIQUE}", "namespace": NAMESPACE},
        "daemons": [{**entry, "status": "Ready"}],
    }
    await it.api.create(CLIQUES, body, namespace=NAMESPACE)


async def say_in_status(it: DomainCluster, uid: str) -> None:
    entry = {"name": "node-1", "ipAddress": "10.0.0.1", "cliqueID": CLIQUE, "index": 0}
    status = {"status": "NotReady", "nodes": [{**entry, "status": "Ready"}]}
    await it.api.patch(
        COMPUTE_DOMAINS, "job", {"status": status}, namespace="default", subresource="status"
    )


@pytest.mark.parametrize("say", [say_in_clique, say_in_status])
async def test_readiness_is_taken_from_where_its_daemons_write_it(
    it: DomainCluster, tmp_path: Path, say: object
) -> None:
    node = DomainNode(tmp_path, it)
    uid = str((await it.domain())["metadata"]["uid"])
    async with node.running() as agent:
        workload = await node.channel(uid)
        waiting = asyncio.create_task(agent.claims.prepare([workload]))
        daemon = await node.daemon(uid, pod=await an_earlier_pod(it, uid))
        answer = (await agent.claims.prepare([daemon]))[daemon.uid]
        assert not isinstance(answer, AgentError), answer
        assert (node.directory(uid) / "imexd.cfg.tmpl").exists()
        assert not (node.directory(uid) / "settings.json").exists()
        assert not waiting.done()
        await say(it, uid)  # type: ignore[operator]
        released = (await waiting)[workload.uid]
        assert not isinstance(released, AgentError), released
    spec = node.cdi(daemon)
    assert spec
    assert "COMPUTE_DOMAIN_NAME=job" in spec.devices[0].container_edits.env


async def a_waiting_workload_and_its_daemon(
    agent: DomainAgent, node: DomainNode, uid: str
) -> asyncio.Task[object]:
    daemon = await node.daemon(uid, pod=await an_earlier_pod(node.it, uid))
    assert isinstance(await prepare(agent, daemon), tuple)
    _, waiting = await a_waiting_workload(agent, node, uid)
    return waiting


async def test_however_often_a_workload_looks_the_api_is_asked_now_and_then(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), str((await it.domain())["metadata"]["uid"])
    asked = it.store.faults.add(Fault(verb="get", resource="computedomaincliques"))
    async with node.running() as agent:
        started = asyncio.get_running_loop().time()
        waiting = await a_waiting_workload_and_its_daemon(agent, node, uid)
        await until(lambda: asked.struck)
        for _ in range(30):
            agent.claims.wake()
            await asyncio.sleep(0.01)
        most = 2 + (asyncio.get_running_loop().time() - started) / ASKED_AGAIN_S
        assert asked.struck <= most
        await say_in_clique(it, uid)
        assert isinstance(await waiting, tuple)


async def test_a_server_that_does_not_say_is_waited_for_and_the_node_stays_in_the_domain(
    it: DomainCluster, tmp_path: Path
) -> None:
    node, uid = DomainNode(tmp_path, it), str((await it.domain())["metadata"]["uid"])
    async with node.running() as agent:
        waiting = await a_waiting_workload_and_its_daemon(agent, node, uid)
        trouble = it.store.faults.add(Fault(resource="computedomaincliques", status=503))
        await until(lambda: trouble.struck)
        await until(
            lambda: "is not known" in str(agent.claims._patience.last_failure(_only(agent)))
        )
        assert await node.label() == uid
        it.store.faults.remove(trouble)
        await say_in_clique(it, uid)
        assert isinstance(await waiting, tuple)


def _only(agent: DomainAgent) -> str:
    """UID of the one claim in the users' namespace."""
    (uid,) = (r.claim.uid for r in agent.claims.records() if r.claim.namespace == "default")
    return uid
