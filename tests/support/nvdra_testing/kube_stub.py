"""A Kubernetes API of which a test overrides the calls it expects; every other call fails it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from nvdra_kube.api import KubeApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_kube.api import Body, WatchEvent


class KubeStub(KubeApi):
    """Fails each call; see the module."""

    async def get(self, *args: Any, **kwargs: Any) -> Body:
        _unexpected("get", args)

    async def list(self, *args: Any, **kwargs: Any) -> Body:
        _unexpected("list", args)

    async def create(self, *args: Any, **kwargs: Any) -> Body:
        _unexpected("create", args)

    async def update(self, *args: Any, **kwargs: Any) -> Body:
        _unexpected("update", args)

    async def patch(self, *args: Any, **kwargs: Any) -> Body:
        _unexpected("patch", args)

    async def delete(self, *args: Any, **kwargs: Any) -> None:
        _unexpected("delete", args)

    def watch(self, *args: Any, **kwargs: Any) -> AsyncIterator[WatchEvent]:
        _unexpected("watch", args)

    async def server_version(self) -> str:
        _unexpected("server_version", ())


def _unexpected(verb: str, args: object) -> NoReturn:
    raise AssertionError(f"unexpected call: {verb} {args}")
