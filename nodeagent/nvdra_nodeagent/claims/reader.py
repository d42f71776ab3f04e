"""Getting claims from the API, in whichever version of resource.k8s.io the server has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from nvdra_kube.errors import (
    ApiError,
    BadRequest,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from nvdra_kube.resources import RESOURCE_CLAIMS
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nvdra_kube.api import Body, KubeApi, Resource
    from nvdra_nodeagent.claims.model import ClaimRef

_VERSIONS: Final = tuple(
    replace(RESOURCE_CLAIMS, version=version) for version in ("v1", "v1beta2", "v1beta1")
)
_GROUP: Final = RESOURCE_CLAIMS.group
_CALL_TIMEOUT_S: Final = 10.0


class ClaimReader:
    """Reads ResourceClaims. The version that answered last is asked first."""

    def __init__(self, api: KubeApi, *, call_timeout_s: float = _CALL_TIMEOUT_S) -> None:
        self._api = api
        self._call_timeout_s = call_timeout_s
        self._version = _VERSIONS[0]

    async def get(self, ref: ClaimRef) -> Body:
        """:raises Permanent: `ClaimNotFound`. :raises Retryable: the API gave no usable answer."""
        try:
            return await self._any_version(
                lambda resource: self._api.get(resource, ref.name, namespace=ref.namespace),
                name=ref.name,
            )
        except NotFound as error:
            if error.details.get("name") != ref.name:
                raise Retryable(
                    "ApiUnavailable",
                    f"GET ResourceClaim {ref.namespace}/{ref.name}: the server has no "
                    f"resourceclaims in {_GROUP}: {error}",
                    hint="enable Dynamic Resource Allocation on the API server",
                ) from error
            raise Permanent(
                "ClaimNotFound",
                f"ResourceClaim {ref.namespace}/{ref.name} does not exist: {error}",
                hint="the pod cannot run without it; delete the pod if it does not go by itself",
            ) from error
        except (ApiError, TimeoutError) as error:
            tried = f"GET ResourceClaim {ref.namespace}/{ref.name}"
            raise _translated(error, tried) from error

    async def current_uid(self, ref: ClaimRef) -> str | None:
        """The UID that now lives under the claim's name, None when there is no such object.

        :raises AgentError: the API gave no usable answer; it says nothing about the claim.
        """
        try:
            body = await self.get(ref)
        except Permanent as error:
            if error.reason == "ClaimNotFound":
                return None
            raise
        return _uid(body)

    async def by_uid(self) -> dict[str, Body]:
        """All claims of the cluster. Heavy: only for what cannot be asked by name.

        :raises AgentError: the API gave no usable answer.
        """
        try:
            found = await self._any_version(self._api.list, name="")
        except (ApiError, TimeoutError) as error:
            raise _translated(error, "LIST ResourceClaims") from error
        items = found.get("items")
        if not isinstance(items, list):
            raise Retryable("ApiUnavailable", "LIST ResourceClaims: the answer has no items")
        return {_uid(item): item for item in items}

    async def all_uids(self) -> frozenset[str]:
        """The UIDs of all claims; as `by_uid`."""
        return frozenset(await self.by_uid())

    async def _any_version(self, call: Callable[[Resource], Awaitable[Body]], *, name: str) -> Body:
        """A server that lacks the version answers 404 as for a missing object, but names none."""
        async with asyncio.timeout(self._call_timeout_s):
            return await self._first_version(call, name=name)

    async def _first_version(
        self, call: Callable[[Resource], Awaitable[Body]], *, name: str
    ) -> Body:
        missing: NotFound | None = None
        for version in (self._version, *(v for v in _VERSIONS if v != self._version)):
            try:
                answer = await call(version)
            except NotFound as error:
                if name and error.details.get("name") == name:
                    self._version = version
                    raise
                missing = missing or error
                continue
            self._version = version
            return answer
        raise missing or NotFound("no version of resource.k8s.io asked")


def _uid(body: Body) -> str:
    uid = body.get("metadata", {}).get("uid")
    if not uid:
        raise Retryable("ApiUnavailable", "a ResourceClaim came without UID")
    return str(uid)


def _translated(error: ApiError | TimeoutError, tried: str) -> AgentError:
    if isinstance(error, TimeoutError):
        return Retryable("ApiUnavailable", f"{tried}: no answer in time")
    if isinstance(error, Unauthorized | Forbidden):
        # Not the user's doing, and rights may be granted or tokens renewed at any time.
        hint = "grant the node agent's service account get on resourceclaims"
        return Retryable("ApiForbidden", f"{tried}: {error}", hint=hint)
    if isinstance(error, BadRequest | Invalid):
        return Permanent("ApiRefused", f"{tried}: {error}")
    if isinstance(error, TooManyRequests):
        return Retryable("ApiThrottled", f"{tried}: {error}")
    return Retryable("ApiUnavailable", f"{tried}: {error}")
