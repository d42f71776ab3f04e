"""ComputeDomains on an embedded API server, with a controller that a test may stop and start.

The test plays agents and kubelets: it lets nodes join and daemons start.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import yaml

from nvdra_api.names import ANNOTATION_NODE_CLIQUE, LABEL_COMPUTE_DOMAIN, NAMESPACE, daemon_set_name
from nvdra_kube.api import Resource
from nvdra_kube.errors import NotFound
from nvdra_kube.resources import EVENTS, NAMESPACES, NODES, PODS, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.controller import Controller
from nvdra_operator.gate import GatedApi, WriteGate
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS
from nvdra_operator.settings import DriverSettings
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_testing.recorded_api import RecordedApi
from nvdra_testing.stillness import unchanged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from nvdra_kube.api import Body, KubeApi

CLIQUE: Final = "7cb2dd80-1f0c-4b6c-a5d0-0fbf0b3d1f26.32766"
CRDS: Final = Path(__file__).parents[3] / "crds"
DEFINITIONS: Final = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
_T = TypeVar("_T")
_PATIENCE_S: Final = 40.0


def a_domain(
    name: str = "job",
    *,
    template: str = "job-channels",
    num_nodes: int = 0,
    namespace: str = "default",
    **channel: Any,
) -> Body:
    return {
        "apiVersion": COMPUTE_DOMAINS.api_version,
        "kind": COMPUTE_DOMAINS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "numNodes": num_nodes,
            "channel": {"resourceClaimTemplate": {"name": template}, **channel},
        },
    }


def some_settings(**options: Any) -> DriverSettings:
    return DriverSettings(**{"namespace": NAMESPACE, "image": "nvdra:test", **options})


class DomainCluster:
    """`api` is the users' side; what controllers write is in `writes`."""

    def __init__(self, store: ClusterStore | None = None) -> None:
        self.store = store or ClusterStore()
        self.api = LocalApi(self.store)
        self.recorded = RecordedApi(self.api)
        self.controller: Controller | None = None

    @property
    def writes(self) -> list[str]:
        """`verb plural name`, in order, Events left out."""
        return [str(write) for write in self.recorded.writes if write.resource != "events"]

    async def install(self, *, conditions: bool = True) -> None:
        for path in sorted(CRDS.glob("*.yaml")):
            body = yaml.safe_load(path.read_text())
            if not conditions and "computedomains" in path.name:
                schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
                del schema["properties"]["status"]["properties"]["conditions"]
            await self.api.create(DEFINITIONS, body)
        await self.api.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})

    @asynccontextmanager
    async def running(
        self,
        settings: DriverSettings | None = None,
        *,
        api: KubeApi | None = None,
        gate: WriteGate | None = None,
        **options: Any,
    ) -> AsyncIterator[Controller]:
        """A controller; cancelled at the end."""
        gated = GatedApi(api or self.recorded, gate or WriteGate.always_open())
        controller = Controller(
            gated,
            settings or some_settings(),
            instance="controller-0",
            **{"patience_s": 0.5, "settle_s": 0.01, **options},
        )
        self.controller = controller
        task = asyncio.create_task(controller.run(), name="controller")
        try:
            yield controller
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def domain(self, name: str = "job", **options: Any) -> Body:
        namespace = options.get("namespace", "default")
        return await self.api.create(
            COMPUTE_DOMAINS, a_domain(name, **options), namespace=namespace
        )

    async def look(self, name: str = "job") -> Body:
        return await self.api.get(COMPUTE_DOMAINS, name, namespace="default")

    async def delete(self, name: str = "job") -> None:
        await self.api.delete(COMPUTE_DOMAINS, name, namespace="default")

    async def template(self, name: str = "job-channels", *, namespace: str = "default") -> Body:
        return await self.api.get(RESOURCE_CLAIM_TEMPLATES, name, namespace=namespace)

    async def daemon_set(self, uid: str) -> Body:
        return await self.api.get(DAEMON_SETS, daemon_set_name(uid), namespace=NAMESPACE)

    async def everything(self, resource: Resource) -> list[Body]:
        items: list[Body] = (await self.api.list(resource))["items"]
        return items

    async def cliques(self) -> list[Body]:
        return await self.everything(CLIQUES)

    async def events(self) -> list[str]:
        return [body["reason"] for body in await self.everything(EVENTS)]

    async def node(self, name: str) -> Body:
        """A ready node."""
        try:
            return await self.api.get(NODES, name)
        except NotFound:
            pass
        made = await self.api.create(NODES, {"metadata": {"name": name}})
        made["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
        return await self.api.update(NODES, made, subresource="status")

    async def join(self, name: str, uid: str, *, clique: str | None = CLIQUE) -> None:
        """What the node agent does when a channel is prepared."""
        await self.node(name)
        meta: Body = {"labels": {LABEL_COMPUTE_DOMAIN: uid}}
        if clique is not None:
            meta["annotations"] = {ANNOTATION_NODE_CLIQUE: clique}
        await self.api.patch(NODES, name, {"metadata": meta})

    async def leave(self, name: str) -> None:
        """What the node agent does when the last channel is gone."""
        meta = {
            "labels": {LABEL_COMPUTE_DOMAIN: None},
            "annotations": {ANNOTATION_NODE_CLIQUE: None},
        }
        await self.api.patch(NODES, name, {"metadata": meta})

    async def daemon(self, node: str, uid: str, *, ip: str = "", ready: bool = False) -> Body:
        """The daemon's pod on a node, made by the DaemonSet controller and run by the kubelet."""
        daemon_set = await self.daemon_set(uid)
        template = daemon_set["spec"]["template"]
        body = {
            "metadata": {
                **template["metadata"],
                "generateName": f"{daemon_set['metadata']['name']}-",
                "namespace": NAMESPACE,
            },
            "spec": {**template["spec"], "nodeName": node},
        }
        pod = await self.api.create(PODS, body, namespace=NAMESPACE)
        return await self.report(pod, ip=ip, ready=ready) if ip else pod

    async def report(self, pod: Body, *, ip: str, ready: bool) -> Body:
        """The kubelet's word on a pod."""
        status = {
            "phase": "Running",
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        }
        name = pod["metadata"]["name"]
        return await self.api.patch(
            PODS, name, {"status": status}, namespace=NAMESPACE, subresource="status"
        )

    async def remove(self, pod: Body) -> None:
        name = pod["metadata"]["name"]
        await self.api.delete(PODS, name, namespace=NAMESPACE, grace_period_s=0)

    async def gone(self, resource: Resource, name: str, *, namespace: str = "") -> None:
        async def missing() -> bool:
            try:
                await self.api.get(resource, name, namespace=namespace or None)
            except NotFound:
                return True
            return False

        await self.until(missing)

    async def until(self, probe: Callable[[], Awaitable[_T]]) -> _T:
        """The first true value of the probe; what it does not find yet is not there yet."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    if value := await probe():
                        return value
                except NotFound:
                    pass
                await asyncio.sleep(0.005)

    async def condition(self, kind: str = "Ready", *, reason: str, name: str = "job") -> Body:
        """The condition once it has this reason."""

        async def found() -> Body:
            status = (await self.look(name)).get("status") or {}
            named = {one["type"]: one for one in status.get("conditions") or ()}
            one: Body = named.get(kind) or {}
            return one if one.get("reason") == reason else {}

        return await self.until(found)

    async def quiet(self, *, for_s: float = 0.15) -> None:
        """Until nothing was written for so long, whoever might have."""
        await unchanged(lambda: (len(self.recorded.writes), self.store.revision), for_s=for_s)


@asynccontextmanager
async def a_cluster(**options: Any) -> AsyncIterator[DomainCluster]:
    cluster = DomainCluster()
    await cluster.install(**options)
    yield cluster
