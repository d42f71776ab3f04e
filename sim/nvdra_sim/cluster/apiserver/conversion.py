"""Between the served versions of a resource and the one that is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.catalog import ResourceType


def to_storage(kind: ResourceType, version: str, body: Body) -> Body:
    """An object as a client sent it, in the storage version; may share parts with `body`."""
    return {**body, "apiVersion": kind.api_version(kind.storage_version)}


def from_storage(kind: ResourceType, version: str, body: Body) -> Body:
    """A stored object in a served version; may share parts with `body`."""
    if version == kind.storage_version:
        return body
    return {**body, "apiVersion": kind.api_version(version)}
