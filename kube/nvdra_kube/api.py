"""The port to a Kubernetes API server, and how resources are named on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Body: TypeAlias = dict[str, Any]
"""A JSON object as the API speaks it. Unknown fields are kept; nobody edits another's body."""

JsonPatch: TypeAlias = list[Body]
"""The operations of an RFC 6902 patch."""

PatchType: TypeAlias = Literal[
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
]


@dataclass(frozen=True, slots=True)
class Resource:
    """A REST resource, e.g. `Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")`.

    `group` is "" for the core group.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, name: str | None = None, *, namespace: str | None = None, subresource: str = ""
    ) -> str:
        """The URL path of the collection, or of one object."""
        parts = ["", "apis", self.group, self.version] if self.group else ["", "api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch. `BOOKMARK` objects carry only a resource version."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Body


class KubeApi(Protocol):
    """Calls to one API server. Each may raise `ApiError`, and each has a time-out.

    Objects go in and out as JSON objects; returned objects belong to the caller.
    """

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Body: ...

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        metadata_only: bool = False,
    ) -> Body:
        """The whole List object: `items` and `metadata.resourceVersion`.

        `metadata_only` asks for no more than the items' metadata; some servers send all the same.
        """
        ...

    async def create(
        self,
        resource: Resource,
        body: Body,
        *,
        namespace: str | None = None,
        subresource: str = "",
        name: str = "",
        dry_run: bool = False,
    ) -> Body:
        """POST. `name` is needed only for sub-resources (`binding`, `token`)."""
        ...

    async def update(
        self, resource: Resource, body: Body, *, subresource: str = "", dry_run: bool = False
    ) -> Body:
        """PUT of the whole object; name, namespace and resourceVersion come from its metadata."""
        ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Body | JsonPatch,
        *,
        namespace: str | None = None,
        subresource: str = "",
        patch_type: PatchType = "application/merge-patch+json",
        field_manager: str = "",
        force: bool = False,
    ) -> Body: ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str = "",
        resource_version: str = "",
        grace_period_s: int | None = None,
    ) -> None:
        """DELETE with preconditions where given. `NotFound` is raised, not swallowed."""
        ...

    def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: float = 300.0,
    ) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version`. Ends when the server ends it; raises `Gone` on 410."""
        ...

    async def server_version(self) -> str:
        """`gitVersion` of /version, e.g. `v1.35.0-gke.1`."""
        ...
