"""The resources that the controllers know beyond those of `nvdra_kube.resources`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_kube.api import Resource
from nvdra_sim.cluster.apiserver.catalog import BUILT_IN

if TYPE_CHECKING:
    from nvdra_kube.api import Body, KubeApi

DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets", "ReplicaSet")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
JOBS: Final = Resource("batch", "v1", "jobs", "Job")
CUSTOM_RESOURCES: Final = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)


def built_in() -> list[Resource]:
    """Everything that a server without custom resources serves."""
    return [
        Resource(
            kind.group, kind.storage_version, kind.plural, kind.kind, namespaced=kind.namespaced
        )
        for kind in BUILT_IN
    ]


async def served(api: KubeApi) -> list[Resource]:
    """Built-in and custom resources, as they are now. Raises ApiError."""
    definitions = (await api.list(CUSTOM_RESOURCES))["items"]
    return [*built_in(), *(custom for body in definitions if (custom := _custom(body)))]


def _custom(definition: Body) -> Resource | None:
    spec = definition["spec"]
    version = next((v["name"] for v in spec.get("versions", []) if v.get("storage")), None)
    if version is None:
        return None
    return Resource(
        spec["group"],
        version,
        spec["names"]["plural"],
        spec["names"]["kind"],
        namespaced=spec.get("scope") == "Namespaced",
    )
