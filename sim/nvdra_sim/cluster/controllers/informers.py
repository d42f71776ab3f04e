"""One informer per resource for all controllers together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_kube.informer import Informer

if TYPE_CHECKING:
    import asyncio

    from nvdra_kube.api import KubeApi, Resource


class SharedInformers:
    """Hands out informers while controllers are built; `start` then runs them all."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._informers: dict[Resource, Informer] = {}

    def of(self, resource: Resource) -> Informer:
        informer = self._informers.get(resource)
        if informer is None:
            informer = self._informers[resource] = Informer(self._api, resource)
        return informer

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Run all in the group and return when they are synced."""
        for resource, informer in self._informers.items():
            group.create_task(informer.run(), name=f"controllers: informer {resource.plural}")
        for informer in self._informers.values():
            await informer.wait_synced()
