"""The real `KubeApi`: calls to an API server over HTTPS, in JSON objects."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, Unpack
from urllib.parse import quote

import msgspec

from nvdra_kube.access import Access, direct_access, in_cluster_access
from nvdra_kube.api import Body, KubeApi, PatchType, Resource, WatchEvent
from nvdra_kube.errors import BadRequest, ConfigurationError, ServerError
from nvdra_kube.kubeconfig import default_paths, exists, load_access
from nvdra_kube.statuses import error_from_status
from nvdra_kube.transport import Call, Exchange, Options, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from nvdra_kube.api import JsonPatch

__all__ = ["Exchange", "KubeSession", "Options"]

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# A server that cannot leave the rest out sends it.
_METADATA: Final = (
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
)
_EVENT_TYPES: Final = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})


class KubeSession(KubeApi):
    """A session with one API server: `async with KubeSession.in_cluster() as api`.

    Entering it reads files and logs in, and raises `ConfigurationError` where that cannot work;
    it does not talk to the server. A call ends within `timeout_s`, waiting out 429 answers as
    long as their Retry-After fits; there is no throttle on this side.
    """

    def __init__(self, access: Callable[[], Awaitable[Access]], options: Options) -> None:
        """Use one of the class methods."""
        self._access = access
        self._options = options

    @classmethod
    def in_cluster(
        cls,
        *,
        environ: Mapping[str, str] = os.environ,
        service_account_dir: Path = _SERVICE_ACCOUNT,
        **options: Unpack[Options],
    ) -> KubeSession:
        """As the service account of the pod we run in; its token is read again when it rotates."""

        async def access() -> Access:
            return await asyncio.to_thread(
                in_cluster_access, environ=environ, service_account_dir=service_account_dir
            )

        return cls(access, options)

    @classmethod
    def from_kubeconfig(
        cls, path: Path | None, *, context: str = "", **options: Unpack[Options]
    ) -> KubeSession:
        """As a kubeconfig says: `path`, or without one what kubectl would read."""
        paths = str(path) if path else default_paths(os.environ)

        async def access() -> Access:
            return await load_access(paths, context=context)

        return cls(access, options)

    @classmethod
    def connect(
        cls, url: str, *, ca_pem: str = "", token: str = "", **options: Unpack[Options]
    ) -> KubeSession:
        """To a server that is known, such as the embedded one."""

        async def access() -> Access:
            return await asyncio.to_thread(direct_access, url, ca_pem=ca_pem, token=token)

        return cls(access, options)

    @classmethod
    def discover(
        cls,
        kubeconfig: Path | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        **options: Unpack[Options],
    ) -> KubeSession:
        """A given kubeconfig, else the pod's service account, else kubectl's kubeconfig.

        Raises `ConfigurationError` if there is none of them.
        """
        if kubeconfig:
            return cls.from_kubeconfig(kubeconfig, **options)
        if environ.get("KUBERNETES_SERVICE_HOST"):
            return cls.in_cluster(environ=environ, **options)
        paths = default_paths(environ)
        if not exists(paths):
            raise ConfigurationError(
                "no way to reach an API server: not running in a pod (KUBERNETES_SERVICE_HOST is "
                f"not set) and no kubeconfig at {paths}; set KUBECONFIG or pass --kubeconfig"
            )

        async def access() -> Access:
            return await load_access(paths)

        return cls(access, options)

    async def __aenter__(self) -> Self:
        self._transport = Transport(await self._access(), self._options)
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__()

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Body:
        return await self._object(_call("get", "GET", resource, name, namespace))

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
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
        )
        accept = _METADATA if metadata_only else ""
        call = _call("list", "GET", resource, None, namespace, query=query, accept=accept)
        return await self._object(call)

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
        namespace = namespace or body.get("metadata", {}).get("namespace")
        call = _call(
            "create",
            "POST",
            resource,
            name if subresource else None,
            namespace,
            subresource=subresource,
            query=_query(dryRun="All" if dry_run else ""),
            body=body,
        )
        return await self._object(call)

    async def update(
        self, resource: Resource, body: Body, *, subresource: str = "", dry_run: bool = False
    ) -> Body:
        metadata = body["metadata"]
        call = _call(
            "update",
            "PUT",
            resource,
            metadata["name"],
            metadata.get("namespace"),
            subresource=subresource,
            query=_query(dryRun="All" if dry_run else ""),
            body=body,
        )
        return await self._object(call)

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
    ) -> Body:
        call = _call(
            "patch",
            "PATCH",
            resource,
            name,
            namespace,
            subresource=subresource,
            query=_query(fieldManager=field_manager, force="true" if force else ""),
            body=patch,
            content_type=patch_type,
        )
        return await self._object(call)

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
        options: Body = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if preconditions := _query(uid=uid, resourceVersion=resource_version):
            options["preconditions"] = preconditions
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        call = _call("delete", "DELETE", resource, name, namespace, body=options)
        await self._transport.send(call)

    async def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: float = 300.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        query = _query(
            watch="1",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            timeoutSeconds=str(max(1, round(timeout_s))),
            labelSelector=label_selector,
            fieldSelector=field_selector,
        )
        call = _call("watch", "GET", resource, None, namespace, query=query)
        async with aclosing(self._transport.lines(call)) as lines:
            async for line in lines:
                if event := _event(line, call):
                    yield event

    async def server_version(self) -> str:
        call = Call("get", "GET", "/version", "version")
        return str((await self._object(call)).get("gitVersion", ""))

    async def _object(self, call: Call) -> Body:
        return _decode(await self._transport.send(call), call)


def _call(
    verb: str,
    method: str,
    resource: Resource,
    name: str | None,
    namespace: str | None,
    *,
    subresource: str = "",
    query: Mapping[str, str] | None = None,
    body: Any = None,
    content_type: str = "application/json",
    accept: str = "",
) -> Call:
    target = "/".join(part for part in (namespace, name, subresource) if part)
    # An empty name would turn the call on one object into one on all of them.
    if name == "" or any(
        part in (".", "..") or "/" in part for part in (name or "", namespace or "")
    ):
        raise BadRequest(f"{verb} {resource.plural} {target}: not the name of an object")
    return Call(
        verb=verb,
        method=method,
        path=quote(resource.path(name, namespace=namespace, subresource=subresource)),
        resource=resource.plural,
        target=target,
        query=query or {},
        content=None if body is None else msgspec.json.encode(body),
        content_type=content_type,
        accept=accept,
    )


def _query(**parameters: str) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}


def _decode(content: bytes, call: Call) -> Body:
    try:
        decoded = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise ServerError(f"{call}: the answer is no JSON: {error}", status=200) from error
    if not isinstance(decoded, dict):
        raise ServerError(f"{call}: the answer is no JSON object", status=200)
    return decoded


def _event(line: bytes, call: Call) -> WatchEvent | None:
    """One line of a watch; None for a type that is not known yet. Raises what an ERROR says."""
    event = _decode(line, call)
    kind, body = event.get("type"), event.get("object")
    if not isinstance(body, dict):
        raise ServerError(f"{call}: an event without an object", status=200)
    if kind == "ERROR":
        raise error_from_status(body, call=str(call))
    return WatchEvent(kind, body) if kind in _EVENT_TYPES else None
