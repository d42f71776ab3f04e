"""A domain whose objects the earlier driver made goes on under this one: nodes join and leave it.

The test plays its daemons, which write their entries into the API themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_api.names import (
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_CLIQUE_ID,
    LABEL_COMPUTE_DOMAIN,
    NAMESPACE,
)
from nvdra_kube.errors import NotFound
from nvdra_kube.resources import PODS, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.objects import daemon_set, daemon_template, workload_template
from nvdra_operator.resources import CLIQUES, DAEMON_SETS
from nvdra_testing.compute_domains import some_settings
from nvdra_testing.domain_ring import FABRIC_CLIQUE, DomainRing, domain_ring

if TYPE_CHECKING:
    from nvdra_kube.api import Body

pytestmark = [pytest.mark.namespaces, pytest.mark.timeout(300)]


async def test_nodes_join_a_domain_of_the_earlier_driver_and_it_can_be_deleted() -> None:
    async with domain_ring(2) as ring:
        [controller] = ring.cluster.controllers
        await ring.cluster.parts.stop([controller.name])
        async with ring.forming(()) as domain:
            await make_earlier_objects(ring, domain.name)
            ring.cluster.parts.start(controller.name, controller.process.run)
            for number, node in enumerate(("node-1", "node-2")):
                domain.pods.append(await ring.workload(domain.name, node))
                daemon = await addressed(ring, domain.uid, node)
                assert (ring.shared(domain.uid, node) / "imexd.cfg.tmpl").exists()
                assert not (ring.shared(domain.uid, node) / "settings.json").exists()
                await enter(ring, domain.uid, daemon, index=number)
                await ring.running(domain.pods[-1])
                assert await ring.channels(domain.pods[-1], node) == ["channel0"]
            await ring.ready(domain.name)
            controller.process.kill()
            ring.cluster.domain_agents["node-1"].kill()
            [found] = await ring.labelled(DAEMON_SETS, domain.uid)
            assert "annotations" not in found["spec"]["template"]["metadata"]
            [clique] = await ring.cliques_of(domain.uid)
            assert [each["index"] for each in clique["daemons"]] == [0, 1]


async def make_earlier_objects(ring: DomainRing, name: str) -> None:
    """As that driver left them: finalizers, labels, and not one annotation."""
    domain, settings, api = await ring.look(name), some_settings(), ring.cluster.api
    daemons = daemon_set(domain, settings)
    template = daemons["spec"]["template"]
    for each in (daemons, template):
        del each["metadata"]["annotations"]
    [container] = template["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe", "securityContext"):
        del container[probe]
    container |= {"image": "earlier:1", "command": ["sleep", "9999"]}
    template["spec"]["terminationGracePeriodSeconds"] = 1
    for resource, body in (
        (DAEMON_SETS, daemons),
        (RESOURCE_CLAIM_TEMPLATES, daemon_template(domain, settings)),
        (RESOURCE_CLAIM_TEMPLATES, workload_template(domain, settings)),
    ):
        body["metadata"]["finalizers"] = [FINALIZER_COMPUTE_DOMAIN]
        await api.create(resource, body, namespace=body["metadata"]["namespace"])


async def addressed(ring: DomainRing, uid: str, node: str) -> Body:
    """The daemon's pod, once it runs."""

    async def found() -> Body:
        daemon = await ring.daemon(uid, node)
        return daemon if (daemon.get("status") or {}).get("phase") == "Running" else {}

    return await ring.until(found, f"the earlier daemon on {node} runs")


async def enter(ring: DomainRing, uid: str, daemon: Body, *, index: int) -> None:
    """What the daemon does when it has started: label its pod, write its entry, be ready."""
    api, name = ring.cluster.api, f"{uid}.{FABRIC_CLIQUE}"
    labels = {"metadata": {"labels": {LABEL_CLIQUE_ID: FABRIC_CLIQUE}}}
    await api.patch(PODS, daemon["metadata"]["name"], labels, namespace=NAMESPACE)
    entry = {
        "nodeName": daemon["spec"]["nodeName"],
        "ipAddress": daemon["status"]["podIP"],
        "cliqueID": FABRIC_CLIQUE,
        "index": index,
        "status": "Ready",
    }
    try:
        clique = await api.get(CLIQUES, name, namespace=NAMESPACE)
    except NotFound:
        marks = {LABEL_COMPUTE_DOMAIN: uid, LABEL_CLIQUE_ID: FABRIC_CLIQUE}
        made = {"metadata": {"name": name, "labels": marks}, "daemons": [entry]}
        await api.create(CLIQUES, made, namespace=NAMESPACE)
        return
    clique["daemons"] = [*clique["daemons"], entry]
    await api.update(CLIQUES, clique)
