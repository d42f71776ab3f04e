"""The one door through which this program writes: shut as soon as it is not the leader.

Time alone decides, so that the door shuts also while the election cannot run.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from nvdra_kube.api import KubeApi
from nvdra_kube.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from nvdra_kube.api import Body, JsonPatch, PatchType, Resource, WatchEvent

_T = TypeVar("_T")


class NotLeading(ApiError):
    """A write was refused on this side: another replica may be the leader by now."""


class WriteGate:
    """Open until a deadline that moves on with each renewal of the lease. Any thread may ask."""

    def __init__(
        self, deadline_s: Callable[[], float], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._deadline_s = deadline_s
        self._clock = clock
        self.refused = 0

    @classmethod
    def always_open(cls) -> WriteGate:
        """For a controller that is the only one."""
        return cls(lambda: float("inf"))

    @property
    def left_s(self) -> float:
        """How long writes are allowed yet; not positive when they are not."""
        return self._deadline_s() - self._clock()

    def check(self, what: str) -> float:
        """Seconds that a write may take. Raises `NotLeading` when it may not begin at all."""
        left_s = self.left_s
        if left_s <= 0:
            self.refused += 1
            raise NotLeading(f"{what}: not written, this replica is not the leader any more")
        return left_s

    async def guard(self, what: str, write: Callable[[], Awaitable[_T]]) -> _T:
        """Do a write, and break it off where the leadership ends meanwhile."""
        left_s = self.check(what)
        if left_s == float("inf"):
            return await write()
        try:
            async with asyncio.timeout(left_s):
                return await write()
        except TimeoutError as error:
            self.refused += 1
            raise NotLeading(f"{what}: broken off, the leadership ended") from error


class GatedApi(KubeApi):
    """An API whose writes go through the gate; reading is free."""

    def __init__(self, api: KubeApi, gate: WriteGate) -> None:
        self._api = api
        self._gate = gate

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Body:
        return await self._api.get(resource, name, namespace=namespace)

    async def list(self, resource: Resource, **options: Any) -> Body:
        return await self._api.list(resource, **options)

    def watch(self, resource: Resource, **options: Any) -> AsyncIterator[WatchEvent]:
        return self._api.watch(resource, **options)

    async def server_version(self) -> str:
        return await self._api.server_version()

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
        return await self._gate.guard(
            f"create {resource.plural} {name}",
            lambda: self._api.create(
                resource,
                body,
                namespace=namespace,
                subresource=subresource,
                name=name,
                dry_run=dry_run,
            ),
        )

    async def update(
        self, resource: Resource, body: Body, *, subresource: str = "", dry_run: bool = False
    ) -> Body:
        return await self._gate.guard(
            f"update {resource.plural} {body['metadata'].get('name')}",
            lambda: self._api.update(resource, body, subresource=subresource, dry_run=dry_run),
        )

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
        return await self._gate.guard(
            f"patch {resource.plural} {name}",
            lambda: self._api.patch(
                resource,
                name,
                patch,
                namespace=namespace,
                subresource=subresource,
                patch_type=patch_type,
                field_manager=field_manager,
                force=force,
            ),
        )

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
        await self._gate.guard(
            f"delete {resource.plural} {name}",
            lambda: self._api.delete(
                resource,
                name,
                namespace=namespace,
                uid=uid,
                resource_version=resource_version,
                grace_period_s=grace_period_s,
            ),
        )
