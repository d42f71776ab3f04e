"""Manifests into the API: each object by its kind, each refusal with its place in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_kube.api import Resource
from nvdra_kube.errors import AlreadyExists, ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nvdra_cli.manifests import Manifest
    from nvdra_kube.api import KubeApi
    from nvdra_sim.cluster.apiserver.catalog import ResourceType


class Refused(Exception):
    """The API does not take a manifest. The text names file, line, object and cause."""

    def __init__(self, manifest: Manifest, cause: str) -> None:
        super().__init__(f"{manifest.source}: {manifest}: {cause}")


async def apply_manifests(
    api: KubeApi, manifests: Sequence[Manifest], *, types: Iterable[ResourceType]
) -> None:
    """Create every object in order. Raises `Refused` at the first that the API does not take."""
    known = tuple(types)
    for manifest in manifests:
        resource = resource_of(manifest, known)
        namespace = manifest.body["metadata"].get("namespace", "default")
        try:
            await api.create(
                resource, manifest.body, namespace=namespace if resource.namespaced else None
            )
        except AlreadyExists as exc:
            if resource.kind != "Namespace":
                raise Refused(manifest, exc.message) from exc
        except ApiError as exc:
            raise Refused(manifest, exc.message) from exc


def resource_of(manifest: Manifest, types: Sequence[ResourceType]) -> Resource:
    """The resource that stores this kind. Raises `Refused` for kinds the server does not serve."""
    api_version, kind = manifest.body["apiVersion"], manifest.body["kind"]
    for candidate in types:
        for version in candidate.versions:
            if (candidate.api_version(version), candidate.kind) == (api_version, kind):
                return Resource(
                    candidate.group, version, candidate.plural, kind, candidate.namespaced
                )
    others = sorted({c.api_version(v) for c in types if c.kind == kind for v in c.versions})
    hint = f"; this server knows {kind} in {', '.join(others)}" if others else ""
    raise Refused(manifest, f"no kind {kind!r} in {api_version!r}{hint}")
