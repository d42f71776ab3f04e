"""Kopf follows domains over HTTPS: finalizers, no annotations for users, prompt ends."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_api.names import FINALIZER_COMPUTE_DOMAIN, NAMESPACE, daemon_set_name
from nvdra_kube.access import direct_access
from nvdra_operator.gate import WriteGate
from nvdra_operator.resources import COMPUTE_DOMAINS, DAEMON_SETS
from nvdra_sim.cluster.apiserver import ApiServer
from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_testing.compute_domains import DomainCluster

pytest.importorskip("kopf", reason="the operator's extra is not installed")

from nvdra_operator.kopf_lifecycle import KopfLifecycle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_kube.access import Access
    from nvdra_operator.controller import Controller


class Served:
    """A cluster over HTTPS; `running` gives a controller that Kopf drives."""

    def __init__(self, it: DomainCluster, server: ApiServer) -> None:
        self.it = it
        self._server = server

    @asynccontextmanager
    async def running(
        self, *, gate: WriteGate | None = None, **options: Any
    ) -> AsyncIterator[Controller]:
        gate = gate or WriteGate.always_open()

        async def access() -> Access:
            return direct_access(
                self._server.url, ca_pem=self._server.ca_pem, token=self._server.token
            )

        async with self.it.running(
            gate=gate,
            lifecycle=lambda _, domains: KopfLifecycle(domains, access=access, gate=gate),
            **options,
        ) as controller:
            yield controller


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    it = DomainCluster()
    await it.install()
    async with ApiServer(it.store) as server:
        yield Served(it, server)


async def test_a_domain_is_made_and_goes_again() -> None:
    async with served() as cluster, cluster.running():
        it = cluster.it
        await it.domain()
        await it.condition(reason="NoNodesYet")
        assert (await it.look())["metadata"]["finalizers"] == [FINALIZER_COMPUTE_DOMAIN]
        await it.delete()
        await it.gone(COMPUTE_DOMAINS, "job", namespace="default")


async def test_a_domain_takes_five_writes_and_four_to_go() -> None:
    async with served() as cluster, cluster.running():
        it = cluster.it
        before = it.store.revision
        await it.domain()
        await it.condition(reason="NoNodesYet")
        await it.quiet()
        # The user's own write, the finalizer by Kopf, three objects, the status.
        assert it.store.revision - before == 6
        assert len(it.writes) == 4
        it.recorded.writes.clear()
        await it.delete()
        await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
        assert len(it.writes) == 3


async def test_users_objects_get_no_annotations() -> None:
    async with served() as cluster, cluster.running():
        it = cluster.it
        await it.domain()
        await it.condition(reason="NoNodesYet")
        await it.api.patch(
            COMPUTE_DOMAINS, "job", {"metadata": {"labels": {"a": "b"}}}, namespace="default"
        )
        await it.quiet()
        assert "annotations" not in (await it.look())["metadata"]


async def test_a_domain_that_was_deleted_while_nobody_was_there_is_torn_down_first() -> None:
    async with served() as cluster:
        it = cluster.it
        async with cluster.running():
            uid = (await it.domain())["metadata"]["uid"]
            await it.condition(reason="NoNodesYet")
            await it.join("node-1", uid)
        await it.delete()
        async with cluster.running():
            await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
        assert not (await it.node("node-1"))["metadata"].get("labels")


async def test_a_domain_stays_until_its_daemons_are_gone() -> None:
    async with served() as cluster, cluster.running(patience_s=60):
        it = cluster.it
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition(reason="NoNodesYet")
        await it.join("node-1", uid)
        pod = await it.daemon("node-1", uid, ip="10.0.0.1", ready=True)
        await it.condition(reason="NodesReady")
        await it.delete()
        await it.gone(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)
        await it.quiet()
        meta = (await it.look())["metadata"]
        assert meta["finalizers"] == [FINALIZER_COMPUTE_DOMAIN]
        assert "annotations" not in meta
        await it.remove(pod)
        await it.gone(COMPUTE_DOMAINS, "job", namespace="default")


async def test_kopf_writes_nothing_when_the_gate_is_shut() -> None:
    async with served() as cluster:
        it = cluster.it
        await it.domain()
        gate = WriteGate(lambda: 0.0)
        async with cluster.running(gate=gate):

            async def refused() -> int:
                return gate.refused

            await it.until(refused)
            assert not (await it.look())["metadata"].get("finalizers")


async def test_a_term_ends_also_while_a_write_hangs() -> None:
    async with served() as cluster:
        it = cluster.it
        fault = it.store.faults.add(Fault(verb="patch", resource=COMPUTE_DOMAINS.plural, hang=True))
        async with cluster.running() as controller:
            await it.domain()

            async def struck() -> int:
                return fault.struck

            await it.until(struck)
        assert controller.domains.kept == frozenset()


async def test_kopf_starts_again_with_the_next_term() -> None:
    async with served() as cluster:
        it = cluster.it
        for name in ("one", "two", "three"):
            async with cluster.running() as controller:
                await it.domain(name, template=name)
                await it.condition(reason="NoNodesYet", name=name)
            assert controller.domains.kept == frozenset()
