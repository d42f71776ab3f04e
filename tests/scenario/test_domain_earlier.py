"""Domains whose DaemonSet an earlier driver made: their daemons tell the API, not the node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from nvdra_api.names import LABEL_COMPUTE_DOMAIN, NAMESPACE
from nvdra_kube.resources import PODS
from nvdra_nodeagent.errors import AgentError
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS
from nvdra_testing.compute_domains import a_cluster
from nvdra_testing.domain_nodes import DomainNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_kube.api import Body
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
