"""What the controller is not told, or only late: it goes by what is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_api.names import LABEL_COMPUTE_DOMAIN, NAMESPACE, daemon_set_name
from nvdra_kube.errors import Gone, ServerError
from nvdra_kube.resources import NAMESPACES, NODES, PODS, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.objects import daemon_set
from nvdra_operator.domains.scene import domain_of
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS
from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_testing.compute_domains import DomainCluster, a_cluster, some_settings
from nvdra_testing.recorded_api import RecordedApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_kube.api import KubeApi, WatchEvent

pytestmark = pytest.mark.looptime


class DeafApi(RecordedApi):
    """Its watches bring nothing while it is deaf, and never what came meanwhile."""

    is_deaf = False

    async def watch(self, *args: Any, **kwargs: Any) -> AsyncIterator[WatchEvent]:
        async for event in super().watch(*args, **kwargs):
            if self.is_deaf:
                await self._hears_again()
                raise Gone("too old resource version")
            yield event

    async def _hears_again(self) -> None:
        while self.is_deaf:
            await asyncio.sleep(0.01)


class OddApi(RecordedApi):
    """Its first list of domains is none; informers, which ask for other lists, get theirs."""

    def __init__(self, api: KubeApi, odd: object) -> None:
        super().__init__(api)
        self.odd: Any = odd

    async def list(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or not self.odd:
            return await super().list(*args, **kwargs)
        odd, self.odd = self.odd, None
        if isinstance(odd, Exception):
            raise odd
        return odd


async def a_formed_domain(it: DomainCluster) -> str:
    uid = str((await it.domain())["metadata"]["uid"])
    await it.until(lambda: it.daemon_set(uid))
    for number in (1, 2):
        await it.join(f"node-{number}", uid)
        await it.daemon(f"node-{number}", uid, ip=f"10.0.0.{number}", ready=True)
    await it.condition("Connected", reason="OneClique")
    await it.condition(reason="NodesReady")
    await it.quiet()
    return uid


async def pod_on(it: DomainCluster, node: str) -> dict[str, Any]:
    return next(pod for pod in await it.everything(PODS) if pod["spec"]["nodeName"] == node)


async def test_what_went_while_nobody_told_is_made_again_or_forgotten() -> None:
    async with a_cluster() as it:
        api = DeafApi(it.api)
        async with it.running(api=api):
            uid = await a_formed_domain(it)
            api.is_deaf = True
            await it.api.delete(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)
            await it.api.delete(RESOURCE_CLAIM_TEMPLATES, "job-channels", namespace="default")
            await it.remove(await pod_on(it, "node-1"))
            await it.leave("node-1")
            await it.quiet()
            api.is_deaf = False
            await it.until(lambda: it.daemon_set(uid))
            await it.until(it.template)

            async def one_is_left() -> bool:
                return [one["name"] for one in (await it.look())["status"]["nodes"]] == ["node-2"]

            await it.until(one_is_left)


async def test_a_domain_that_is_another_one_by_now_gets_its_own_objects() -> None:
    async with a_cluster() as it:
        api = DeafApi(it.api)
        async with it.running(api=api) as controller:
            uid = await a_formed_domain(it)
            api.is_deaf = True
            bare = {"metadata": {"finalizers": None}}
            await it.api.patch(COMPUTE_DOMAINS, "job", bare, namespace="default")
            await it.delete()
            other = str((await it.domain(template="other"))["metadata"]["uid"])
            await it.remove(await pod_on(it, "node-1"))
            await it.remove(await pod_on(it, "node-2"))
            api.is_deaf = False
            await it.until(lambda: it.daemon_set(other))
            await it.condition(reason="NoNodesYet")
            await it.gone(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)
            await it.gone(RESOURCE_CLAIM_TEMPLATES, "job-channels", namespace="default")

            async def clean() -> bool:
                nodes = map(domain_of, await it.everything(NODES))
                return not any(nodes) and not await it.everything(CLIQUES)

            await it.until(clean)

            async def forgotten() -> bool:
                return not controller.domains.knows(uid)

            await it.until(forgotten)


async def test_a_domain_gets_its_name_when_what_stood_there_is_gone() -> None:
    async with a_cluster() as it, it.running():
        body = {"metadata": {"name": "job-channels"}, "spec": {"spec": {"devices": {}}}}
        await it.api.create(RESOURCE_CLAIM_TEMPLATES, body, namespace="default")
        uid = (await it.domain())["metadata"]["uid"]
        await it.condition("Accepted", reason="ClaimTemplateConflict")
        await it.api.delete(RESOURCE_CLAIM_TEMPLATES, "job-channels", namespace="default")
        await it.condition("Accepted", reason="ObjectsMade")
        assert domain_of(await it.template()) == uid
        assert (await it.look())["status"]["status"] == "Ready"


async def test_the_second_domain_gets_the_name_of_the_first_when_that_goes() -> None:
    async with a_cluster() as it, it.running():
        await it.domain("first")
        await it.condition(reason="NoNodesYet", name="first")
        second = await it.domain("second")
        await it.condition("Accepted", reason="ClaimTemplateConflict", name="second")
        await it.delete("first")
        await it.condition(reason="NoNodesYet", name="second")
        assert domain_of(await it.template()) == second["metadata"]["uid"]


async def test_a_daemon_set_of_an_earlier_installation_elsewhere_is_used_and_taken_down() -> None:
    async with a_cluster() as it:
        await it.api.create(NAMESPACES, {"metadata": {"name": "before"}})
        domain = await it.domain()
        uid = domain["metadata"]["uid"]
        there = daemon_set(domain, some_settings(namespace="before"))
        await it.api.create(DAEMON_SETS, there, namespace="before")
        async with it.running(some_settings(additional_namespaces=("before",))):
            await it.condition(reason="NoNodesYet")
            await it.quiet()
            assert [one["metadata"]["namespace"] for one in await it.everything(DAEMON_SETS)] == [
                "before"
            ]
            await it.join("node-1", uid)
            labels = {LABEL_COMPUTE_DOMAIN: uid}
            pod = {
                "metadata": {"name": "daemon", "labels": labels},
                "spec": {**there["spec"]["template"]["spec"], "nodeName": "node-1"},
            }
            await it.api.create(PODS, pod, namespace="before")
            status = {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
            await it.api.patch(
                PODS, "daemon", {"status": status}, namespace="before", subresource="status"
            )
            await it.condition(reason="NodesReady")
            await it.delete()
            await it.gone(COMPUTE_DOMAINS, "job", namespace="default")
            assert await it.everything(DAEMON_SETS) == []


@pytest.mark.parametrize("odd", [{"items": [{}]}, ServerError("no leader")], ids=["odd", "error"])
async def test_a_sweep_that_failed_is_made_again_soon(odd: object) -> None:
    async with a_cluster() as it:
        await it.join("node-1", "9d9c6b7a-0000-4000-8000-000000000009")
        api = OddApi(it.api, odd)
        async with it.running(api=api):

            async def swept() -> bool:
                return not domain_of(await it.node("node-1"))

            await it.until(swept)
            assert api.odd is None


async def test_a_template_that_the_cluster_alters_each_time_is_never_called_made() -> None:
    async with a_cluster() as it, it.running():
        fields = ("spec.spec.devices.config",)
        it.store.faults.add(Fault(resource="resourceclaimtemplates", drop_fields=fields))
        await it.domain()
        await it.condition("Accepted", reason="ClaimTemplateConflict")
        await it.quiet()
        version = (await it.look())["metadata"]["resourceVersion"]
        await asyncio.sleep(45)
        assert (await it.look())["metadata"]["resourceVersion"] == version
        assert len(it.writes) < 20
        it.store.faults.clear()
        await it.condition("Accepted", reason="ObjectsMade")
