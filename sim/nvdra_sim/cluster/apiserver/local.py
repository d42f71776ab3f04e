"""The API in process: the same semantics as over HTTP, without the socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from nvdra_kube.api import KubeApi, WatchEvent
from nvdra_sim.cluster.apiserver.bodies import own
from nvdra_sim.cluster.apiserver.deletion import Deletion
from nvdra_sim.cluster.apiserver.front import Call, Front
from nvdra_sim.cluster.apiserver.selectors import parse_selector

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator

    from nvdra_kube.api import Body, PatchType, Resource
    from nvdra_sim.cluster.apiserver.store import ClusterStore

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_event = msgspec.json.Decoder(WatchEvent).decode


class LocalApi(KubeApi):
    """`KubeApi` straight onto a store. Objects are copied on the way in and out.

    Each call yields to the event loop once, so that callers interleave as they would on a network.
    `field_validation` says what becomes of unknown fields: "Strict" refuses them, as kubectl wants
    it; otherwise they are dropped.
    """

    def __init__(self, store: ClusterStore, *, field_validation: str = "Ignore") -> None:
        self.store = store
        self._field_validation = field_validation
        self._front = Front(store)

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Body:
        return await self._serve(self._call("get", resource, namespace=namespace, name=name))

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
        kind = self.store.catalog.find(resource)
        selector = parse_selector(kind, labels=label_selector, fields=field_selector)
        call = self._call(
            "list",
            resource,
            namespace=namespace,
            selector=selector,
            resource_version=resource_version,
        )
        found = await self._serve(call)
        if metadata_only:
            found["items"] = [{"metadata": item["metadata"]} for item in found["items"]]
        return found

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
        call = self._call(
            "create",
            resource,
            namespace=namespace or _namespace_of(body),
            name=name,
            subresource=subresource,
            body=own(body),
            dry_run=dry_run,
        )
        return await self._serve(call)

    async def update(
        self, resource: Resource, body: Body, *, subresource: str = "", dry_run: bool = False
    ) -> Body:
        call = self._call(
            "update",
            resource,
            namespace=_namespace_of(body),
            name=_metadata_text(body, "name"),
            subresource=subresource,
            body=own(body),
            dry_run=dry_run,
        )
        return await self._serve(call)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Body | builtins.list[Body],
        *,
        namespace: str | None = None,
        subresource: str = "",
        patch_type: PatchType = "application/merge-patch+json",
        field_manager: str = "",
        force: bool = False,
    ) -> Body:
        call = self._call(
            "patch",
            resource,
            namespace=namespace,
            name=name,
            subresource=subresource,
            body=own(patch),
            patch_type=patch_type,
            field_manager=field_manager,
            force=force,
        )
        return await self._serve(call)

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
        deletion = Deletion(
            uid=uid, resource_version=resource_version, grace_period_s=grace_period_s
        )
        call = self._call("delete", resource, namespace=namespace, name=name, deletion=deletion)
        await self._serve(call)

    async def delete_collection(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        """What `kubectl delete --all` and the kubelet's wiping of slices do."""
        kind = self.store.catalog.find(resource)
        selector = parse_selector(kind, labels=label_selector, fields=field_selector)
        call = self._call("deletecollection", resource, namespace=namespace, selector=selector)
        await self._serve(call)

    async def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: float = 300.0,
    ) -> AsyncIterator[WatchEvent]:
        kind = self.store.catalog.find(resource)
        selector = parse_selector(kind, labels=label_selector, fields=field_selector)
        call = self._call(
            "watch",
            resource,
            namespace=namespace,
            selector=selector,
            resource_version=resource_version,
            timeout_s=timeout_s,
        )
        await asyncio.sleep(0)
        async for line in await self._front.watch(call):
            yield _decode_event(line)

    async def server_version(self) -> str:
        return self.store.profile.version

    async def _serve(self, call: Call) -> Body:
        await asyncio.sleep(0)
        return _decode_object((await self._front.serve(call)).raw)

    def _call(self, verb: str, resource: Resource, *, namespace: str | None, **extra: Any) -> Call:
        return Call(
            verb=verb,
            kind=self.store.catalog.find(resource),
            version=resource.version,
            namespace=namespace or "",
            field_validation=self._field_validation,
            **extra,
        )


def _namespace_of(body: Body) -> str:
    return _metadata_text(body, "namespace")


def _metadata_text(body: Body, field: str) -> str:
    """From an object that may be malformed; the server is to say how."""
    meta = body.get("metadata")
    value = meta.get(field) if isinstance(meta, dict) else None
    return value if isinstance(value, str) else ""
