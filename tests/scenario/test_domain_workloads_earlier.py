"""A domain whose objects the earlier driver made goes on under this one: nodes join and leave it.

The test plays its daemons, which write their entries into the API themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from nvdra_api.names import (
    COMPUTE_DOMAIN_DRIVER,
    FINALIZER_COMPUTE_DOMAIN,
    LABEL_CLIQUE_ID,
    LABEL_COMPUTE_DOMAIN,
    NAMESPACE,
)
from nvdra_kube.errors import Conflict, NotFound
from nvdra_kube.resources import NODES, PODS, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.objects import daemon_set, daemon_template, workload_template
from nvdra_operator.resources import CLIQUES, DAEMON_SETS
from nvdra_sim.cluster.node import DOMAIN_AGENT_MODULE
from nvdra_testing.compute_domains import some_settings
from nvdra_testing.domain_ring import FABRIC_CLIQUE, PATIENCE_S, DomainRing, domain_ring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.node import NodeDirectories
    from nvdra_testing.domain_ring import Formed

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

TWO = ("node-1", "node-2")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ring() -> AsyncIterator[DomainRing]:
    async with domain_ring(2) as it:
        yield it


async def test_nodes_join_a_domain_of_the_earlier_driver_and_it_can_be_deleted(
    ring: DomainRing,
) -> None:
    async with an_earlier_domain(ring) as domain:
        for pod, node in zip(domain.pods, TWO, strict=True):
            assert (ring.shared(domain.uid, node) / "imexd.cfg.tmpl").exists()
            assert not (ring.shared(domain.uid, node) / "settings.json").exists()
            assert await ring.channels(pod, node) == ["channel0"]
        ring.cluster.controllers[0].process.kill()
        ring.cluster.domain_agents["node-1"].kill()
        [found] = await ring.labelled(DAEMON_SETS, domain.uid)
        assert "annotations" not in found["spec"]["template"]["metadata"]
        [clique] = await ring.cliques_of(domain.uid)
        assert [each["index"] for each in clique["daemons"]] == [0, 1]


async def test_what_the_earlier_driver_prepared_runs_on_after_the_upgrade_and_can_end(
    ring: DomainRing,
) -> None:
    async with an_earlier_domain(ring) as domain:
        node = ring.cluster.node("node-1")
        agent = ring.cluster.domain_agents[node.name]
        state = node.directories.plugins / COMPUTE_DOMAIN_DRIVER
        await ring.cluster.parts.stop([f"domain agent {node.name}"])
        await leave_only_a_checkpoint(node.directories, state)

        ring.cluster.parts.start(f"domain agent {node.name}", agent.run)

        async def taken_over() -> bool:
            return (state / "checkpoint.json.migrated").exists()

        await ring.until(taken_over, "the checkpoint is taken over")
        await ring.cluster.wait_node(node.name, timeout_s=PATIENCE_S)
        await ring.ready(domain.name)
        pod = domain.pods[0]
        assert (await ring.pod(pod))["status"]["containerStatuses"][0]["restartCount"] == 0
        await ring.delete_pod(pod)
        await ring.pod_gone(pod)
        labels = (await ring.cluster.api.get(NODES, node.name))["metadata"]["labels"]
        assert LABEL_COMPUTE_DOMAIN not in labels


@asynccontextmanager
async def an_earlier_domain(ring: DomainRing) -> AsyncIterator[Formed]:
    """Made while no controller of ours ran; then both nodes joined it."""
    [controller] = ring.cluster.controllers
    await ring.cluster.parts.stop([controller.name])
    async with ring.forming(()) as domain:
        try:
            await make_earlier_objects(ring, domain.name)
        finally:
            ring.cluster.parts.start(controller.name, controller.process.run)
        for number, node in enumerate(TWO):
            domain.pods.append(await ring.workload(domain.name, node))
            daemon = await addressed(ring, domain.uid, node)
            await enter(ring, domain.uid, daemon, index=number)
            await ring.running(domain.pods[-1])
        await ring.ready(domain.name)
        yield domain


async def leave_only_a_checkpoint(directories: NodeDirectories, state: Path) -> None:
    """The node as the earlier driver has it: its checkpoint, and no record of ours."""
    export = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", DOMAIN_AGENT_MODULE, "export-checkpoint"),
        *("--output", str(state / "checkpoint.json")),
        *("--kubelet-plugins-directory-path", str(directories.plugins)),
        *("--cdi-root", str(directories.cdi)),
    )
    assert await export.wait() == 0
    await asyncio.to_thread(shutil.rmtree, state / "claims")
    (state / "checkpoint.json.exported").unlink()


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

    marks = {LABEL_COMPUTE_DOMAIN: uid, LABEL_CLIQUE_ID: FABRIC_CLIQUE}
    made = {"metadata": {"name": name, "labels": marks}, "daemons": [entry]}

    async def written() -> bool:
        """Daemons try again, too, when somebody else was faster."""
        with contextlib.suppress(Conflict):
            try:
                clique = await api.get(CLIQUES, name, namespace=NAMESPACE)
            except NotFound:
                await api.create(CLIQUES, made, namespace=NAMESPACE)
            else:
                clique["daemons"] = [*(clique.get("daemons") or ()), entry]
                await api.update(CLIQUES, clique)
            return True
        return False

    await ring.until(written, f"the entry of {entry['nodeName']} is written")
