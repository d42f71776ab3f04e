"""Domains whose objects and daemons are an earlier driver's: the daemons own their entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_api.names import (
    ANNOTATION_RESERVATIONS,
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_CLIQUE_ID,
    LABEL_COMPUTE_DOMAIN,
    NAMESPACE,
)
from nvdra_kube.resources import NODES, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.objects import daemon_set, daemon_template, workload_template
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS
from nvdra_testing.compute_domains import CLIQUE, DomainCluster, a_cluster, some_settings

if TYPE_CHECKING:
    from nvdra_kube.api import Body

pytestmark = pytest.mark.looptime


async def a_domain_of_earlier_daemons(it: DomainCluster) -> str:
    """A domain whose DaemonSet says nothing of a protocol; returns its UID."""
    made = await it.domain()
    legacy = daemon_set(made, some_settings(image="earlier:1"))
    del legacy["metadata"]["annotations"]
    del legacy["spec"]["template"]["metadata"]["annotations"]
    await it.api.create(DAEMON_SETS, legacy, namespace=NAMESPACE)
    return str(made["metadata"]["uid"])


def an_earlier_entry(node: str, *, index: int, ip: str) -> Body:
    address = {"ipAddress": ip, "cliqueID": CLIQUE, "index": index}
    return {"nodeName": node, **address, "status": "Ready"}


async def an_earlier_clique(it: DomainCluster, uid: str, *entries: Body) -> Body:
    labels = {LABEL_COMPUTE_DOMAIN: uid, LABEL_CLIQUE_ID: CLIQUE}
    meta = {"name": f"{uid}.{CLIQUE}", "namespace": NAMESPACE, "labels": labels}
    body = {"metadata": meta, "daemons": list(entries)}
    return await it.api.create(CLIQUES, body, namespace=NAMESPACE)


async def test_daemons_of_the_earlier_driver_keep_writing_their_entries() -> None:
    async with a_cluster() as it:
        uid = await a_domain_of_earlier_daemons(it)
        await it.join("node-1", uid, clique=None)
        await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
        entry = an_earlier_entry("node-1", index=5, ip="10.0.0.1")
        clique = await an_earlier_clique(it, uid, entry)
        async with it.running():
            await it.condition(reason="NodesReady")
            await it.quiet()
            assert await it.cliques() == [clique]
            (node,) = (await it.look())["status"]["nodes"]
            assert (node["name"], node["index"]) == ("node-1", 5)
            found = (await it.daemon_set(uid))["spec"]["template"]["spec"]["containers"][0]
            assert found["image"] == "earlier:1"
            node_1 = await it.node("node-1")
            node_1["status"] = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
            await it.api.update(NODES, node_1, subresource="status")
            await it.condition(reason="NodeNotReady")
            assert await it.cliques() == [clique]


async def test_an_entry_of_an_earlier_daemon_whose_node_is_gone_is_taken_out() -> None:
    async with a_cluster() as it:
        uid = await a_domain_of_earlier_daemons(it)
        await it.join("node-1", uid, clique=None)
        await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
        stays = an_earlier_entry("node-1", index=1, ip="10.0.0.1")
        lost = an_earlier_entry("node-0", index=0, ip="10.0.0.9")
        await an_earlier_clique(it, uid, lost, stays)
        async with it.running():
            await it.condition(reason="NodesReady")
            (clique,) = await it.cliques()
            assert clique["daemons"] == [stays]
            assert ANNOTATION_RESERVATIONS not in (clique["metadata"].get("annotations") or {})
            assert [node["name"] for node in (await it.look())["status"]["nodes"]] == ["node-1"]


async def test_an_earlier_daemon_that_is_being_replaced_keeps_its_entry() -> None:
    async with a_cluster() as it:
        uid = await a_domain_of_earlier_daemons(it)
        await it.join("node-1", uid, clique=None)
        clique = await an_earlier_clique(
            it, uid, an_earlier_entry("node-1", index=1, ip="10.0.0.1")
        )
        async with it.running():
            found = await it.condition(reason="NodeNotReady")
            assert "node-1: daemon has no pod yet" in found["message"]
            await it.quiet()
            assert await it.cliques() == [clique]


async def test_without_cliques_an_entry_of_an_earlier_daemon_goes_with_its_node() -> None:
    async with a_cluster() as it:
        uid = await a_domain_of_earlier_daemons(it)
        await it.join("node-1", uid, clique=None)
        # The daemon knows its address before its kubelet has told it to anybody else.
        await it.daemon("node-1", uid)
        nodes = [
            {"name": name, "ipAddress": ip, "cliqueID": CLIQUE, "index": index, "status": "Ready"}
            for index, (name, ip) in enumerate([("node-0", "10.0.0.9"), ("node-1", "10.0.0.1")])
        ]
        status = {"status": {"status": "Ready", "nodes": nodes}}
        await it.api.patch(
            COMPUTE_DOMAINS, "job", status, namespace="default", subresource="status"
        )
        async with it.running():
            await it.condition(reason="NodeNotReady")
            (node,) = (await it.look())["status"]["nodes"]
            assert (node["name"], node["index"], node["status"]) == ("node-1", 1, "NotReady")


async def test_a_domain_of_the_earlier_driver_goes_with_all_its_finalizers() -> None:
    async with a_cluster() as it:
        made = await it.domain()
        settings = some_settings()
        held = {"finalizers": [FINALIZER_COMPUTE_DOMAIN]}
        await it.api.patch(COMPUTE_DOMAINS, "job", {"metadata": held}, namespace="default")
        for resource, body in (
            (DAEMON_SETS, daemon_set(made, settings)),
            (RESOURCE_CLAIM_TEMPLATES, daemon_template(made, settings)),
            (RESOURCE_CLAIM_TEMPLATES, workload_template(made, settings)),
        ):
            body["metadata"].update(held)
            body["metadata"].pop("annotations", None)
            await it.api.create(resource, body, namespace=body["metadata"]["namespace"])
        await it.delete()
        async with it.running():
            await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
        assert await it.everything(DAEMON_SETS) == []
        assert await it.everything(RESOURCE_CLAIM_TEMPLATES) == []
