"""Which resources the embedded API server serves, and what is special about each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from nvdra_sim.cluster.apiserver.refusals import no_such_resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nvdra_kube.api import Resource
    from nvdra_sim.cluster.apiserver.printer_columns import PrinterColumn

TypeKey: TypeAlias = tuple[str, str]
"""(group, plural): what an object is stored under, whatever version a client speaks."""

StatusMetadata: TypeAlias = Literal["kept", "taken"]


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A resource with all its served versions.

    `versions` is in order of preference. `status` says that spec and status are written through
    different endpoints; `status_metadata`, whether the status endpoint also takes labels and
    annotations (as it does for pods and nodes) or keeps the stored ones.
    """

    group: str
    plural: str
    kind: str
    namespaced: bool = True
    versions: tuple[str, ...] = ("v1",)
    storage_version: str = "v1"
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    status_metadata: StatusMetadata = "taken"
    generation: bool = False
    subresources: tuple[str, ...] = ()
    unconditional_update: bool = True
    custom: bool = False
    columns: tuple[PrinterColumn, ...] = ()

    @property
    def key(self) -> TypeKey:
        return (self.group, self.plural)

    @property
    def qualified(self) -> str:
        """`pods`, `resourceclaims.resource.k8s.io`: how messages name the resource."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version

    def serves_subresource(self, subresource: str) -> bool:
        return subresource in self.subresources or (subresource == "status" and self.status)


def _core(plural: str, kind: str, **extra: object) -> ResourceType:
    return ResourceType("", plural, kind, **extra)  # type: ignore[arg-type]


def _apps(plural: str, kind: str, short: str) -> ResourceType:
    return ResourceType(
        "apps",
        plural,
        kind,
        short_names=(short,),
        categories=("all",),
        status=True,
        generation=True,
        subresources=() if kind == "DaemonSet" else ("scale",),
    )


def _rbac(plural: str, kind: str, *, namespaced: bool) -> ResourceType:
    return ResourceType("rbac.authorization.k8s.io", plural, kind, namespaced=namespaced)


_DRA_VERSIONS = ("v1", "v1beta2", "v1beta1")


def _dra(
    plural: str,
    kind: str,
    *,
    namespaced: bool,
    status: bool = False,
    generation: bool = False,
) -> ResourceType:
    return ResourceType(
        "resource.k8s.io",
        plural,
        kind,
        namespaced=namespaced,
        versions=_DRA_VERSIONS,
        status=status,
        status_metadata="kept",
        generation=generation,
    )


BUILT_IN: tuple[ResourceType, ...] = (
    _core(
        "namespaces",
        "Namespace",
        namespaced=False,
        short_names=("ns",),
        status=True,
        subresources=("finalize",),
    ),
    _core("nodes", "Node", namespaced=False, short_names=("no",), status=True),
    _core(
        "pods",
        "Pod",
        short_names=("po",),
        categories=("all",),
        status=True,
        generation=True,
        subresources=("binding", "eviction", "log"),
    ),
    _core("events", "Event", short_names=("ev",)),
    _core("serviceaccounts", "ServiceAccount", short_names=("sa",)),
    _core("configmaps", "ConfigMap", short_names=("cm",)),
    _core("secrets", "Secret"),
    _core("services", "Service", short_names=("svc",), categories=("all",), status=True),
    _apps("deployments", "Deployment", "deploy"),
    _apps("daemonsets", "DaemonSet", "ds"),
    _apps("replicasets", "ReplicaSet", "rs"),
    ResourceType("batch", "jobs", "Job", categories=("all",), status=True, generation=True),
    ResourceType("coordination.k8s.io", "leases", "Lease", unconditional_update=False),
    _dra("deviceclasses", "DeviceClass", namespaced=False, generation=True),
    _dra("resourceclaims", "ResourceClaim", namespaced=True, status=True),
    _dra("resourceclaimtemplates", "ResourceClaimTemplate", namespaced=True),
    _dra("resourceslices", "ResourceSlice", namespaced=False, generation=True),
    ResourceType(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
        short_names=("crd", "crds"),
        status=True,
        generation=True,
    ),
    _rbac("clusterroles", "ClusterRole", namespaced=False),
    _rbac("clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    _rbac("roles", "Role", namespaced=True),
    _rbac("rolebindings", "RoleBinding", namespaced=True),
)


class Catalog:
    """The resource types in force; custom ones come and go."""

    def __init__(self, types: Iterable[ResourceType] = BUILT_IN) -> None:
        self._types = {kind.key: kind for kind in types}

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(tuple(self._types.values()))

    def find(self, resource: Resource) -> ResourceType:
        """The type behind a resource in a served version; raises `NotFound` as the server does."""
        return self.at(resource.group, resource.version, resource.plural)

    def at(self, group: str, version: str, plural: str) -> ResourceType:
        kind = self._types.get((group, plural))
        if kind is None or version not in kind.versions:
            raise no_such_resource()
        return kind

    def get(self, key: TypeKey) -> ResourceType | None:
        return self._types.get(key)

    def add(self, kind: ResourceType) -> None:
        self._types[kind.key] = kind

    def remove(self, key: TypeKey) -> None:
        self._types.pop(key, None)

    def group_versions(self) -> dict[str, list[str]]:
        """Served versions by group, preferred first; the core group is ""."""
        groups: dict[str, list[str]] = {}
        for kind in self:
            versions = groups.setdefault(kind.group, [])
            versions += [version for version in kind.versions if version not in versions]
        return groups
