"""An API that remembers each write, and that can die at one of them, as a killed process does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from nvdra_kube.api import KubeApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from nvdra_kube.api import Body, JsonPatch, Resource, WatchEvent

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Write:
    verb: str
    resource: str
    name: str
    at_s: float
    outcome: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.name}"


class RecordedApi(KubeApi):
    """See the module. `die_at` counts writes from 1; `before` dies without the write's effect."""

    def __init__(
        self,
        api: KubeApi,
        *,
        die_at: int = 0,
        when: Literal["before", "after"] = "after",
        on_write: Callable[[Write], None] | None = None,
    ) -> None:
        self._api = api
        self._die_at = die_at
        self._when = when
        self._on_write = on_write
        self.writes: list[Write] = []
        self.died = asyncio.Event()

    async def get(self, *args: Any, **kwargs: Any) -> Body:
        await self._dead()
        return await self._api.get(*args, **kwargs)

    async def list(self, *args: Any, **kwargs: Any) -> Body:
        await self._dead()
        return await self._api.list(*args, **kwargs)

    async def watch(self, *args: Any, **kwargs: Any) -> AsyncIterator[WatchEvent]:
        async for event in self._api.watch(*args, **kwargs):
            await self._dead()
            yield event

    async def server_version(self) -> str:
        return await self._api.server_version()

    async def create(self, resource: Resource, body: Body, **options: Any) -> Body:
        name = body["metadata"].get("name", "")
        return await self._write(
            "create", resource, name, self._api.create(resource, body, **options)
        )

    async def update(self, resource: Resource, body: Body, **options: Any) -> Body:
        name = body["metadata"]["name"]
        return await self._write(
            "update", resource, name, self._api.update(resource, body, **options)
        )

    async def patch(
        self, resource: Resource, name: str, patch: Body | JsonPatch, **options: Any
    ) -> Body:
        call = self._api.patch(resource, name, patch, **options)
        return await self._write("patch", resource, name, call)

    async def delete(self, resource: Resource, name: str, **options: Any) -> None:
        await self._write("delete", resource, name, self._api.delete(resource, name, **options))

    async def _write(self, verb: str, resource: Resource, name: str, call: Awaitable[_T]) -> _T:
        try:
            await self._dead()
            now_s = asyncio.get_running_loop().time()
            write = Write(verb, resource.plural, name, now_s)
            self.writes.append(write)
            if self._on_write:
                self._on_write(write)
            dies = len(self.writes) == self._die_at
            if dies and self._when == "before":
                self.died.set()
                await self._dead()
            result = await call
            if dies:
                self.died.set()
                await self._dead()
            return result
        finally:
            if asyncio.iscoroutine(call):
                call.close()

    async def _dead(self) -> None:
        """A dead process gets no answers; its tasks end when they are cancelled."""
        if self.died.is_set():
            await asyncio.Event().wait()
