"""What a program says to the API server and hears from it: calls, and the bytes of their bodies.

Counted on the way to an API in this process, in the encoding in which the client sends it over the
network; headers and TLS come on top there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from nvdra_kube.api import KubeApi
from nvdra_kube.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from nvdra_kube.api import Body, JsonPatch, Resource, WatchEvent

_T = TypeVar("_T")


class Traffic:
    """Counts by what was asked: `patch nodes`, `watch computedomaincliques`."""

    def __init__(self) -> None:
        self.writes: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.conflicts: Counter[str] = Counter()

    def clear(self) -> None:
        """Begin anew."""
        for counter in (self.writes, self.sent, self.received, self.conflicts):
            counter.clear()


class MeteredApi(KubeApi):
    """Passes everything on and counts it in `traffic`."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self.traffic = Traffic()

    async def get(self, resource: Resource, name: str, **options: Any) -> Body:
        return self._heard(f"get {resource.plural}", await self._api.get(resource, name, **options))

    async def list(self, resource: Resource, **options: Any) -> Body:
        return self._heard(f"list {resource.plural}", await self._api.list(resource, **options))

    async def watch(self, resource: Resource, **options: Any) -> AsyncIterator[WatchEvent]:
        async for event in self._api.watch(resource, **options):
            self._heard(f"watch {resource.plural}", event)
            yield event

    async def server_version(self) -> str:
        return await self._api.server_version()

    async def create(self, resource: Resource, body: Body, **options: Any) -> Body:
        call = self._api.create(resource, body, **options)
        return await self._write(f"create {resource.plural}", body, call)

    async def update(self, resource: Resource, body: Body, **options: Any) -> Body:
        call = self._api.update(resource, body, **options)
        return await self._write(f"update {resource.plural}", body, call)

    async def patch(
        self, resource: Resource, name: str, patch: Body | JsonPatch, **options: Any
    ) -> Body:
        call = self._api.patch(resource, name, patch, **options)
        return await self._write(f"patch {resource.plural}", patch, call)

    async def delete(self, resource: Resource, name: str, **options: Any) -> None:
        call = self._api.delete(resource, name, **options)
        await self._write(f"delete {resource.plural}", {}, call)

    async def _write(self, what: str, body: Body | JsonPatch, call: Awaitable[_T]) -> _T:
        traffic = self.traffic
        traffic.writes[what] += 1
        traffic.sent[what] += _size(body)
        try:
            return self._heard(what, await call)
        except Conflict:
            traffic.conflicts[what] += 1
            raise

    def _heard(self, what: str, answer: _T) -> _T:
        self.traffic.received[what] += _size(answer)
        return answer


def _size(body: object) -> int:
    return len(msgspec.json.encode(body))
