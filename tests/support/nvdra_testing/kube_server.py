"""The embedded API server, and what tests of its clients need around it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from nvdra_kube.informer import Informer
from nvdra_kube.session import KubeSession
from nvdra_sim.cluster.apiserver import ApiServer, ClusterStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from nvdra_kube.api import Body, KubeApi, Resource

_PATIENCE_S: Final = 30.0


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds; the limit is generous, and only for broken code."""
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def connected(store: ClusterStore, **options: Any) -> AsyncIterator[KubeSession]:
    """A session over HTTPS with a server of this store."""
    async with (
        ApiServer(store) as server,
        KubeSession.connect(server.url, ca_pem=server.ca_pem, token=server.token, **options) as api,
    ):
        yield api


@asynccontextmanager
async def following(api: KubeApi, resource: Resource, **options: Any) -> AsyncIterator[Informer]:
    """An informer that has synced."""
    informer = Informer(api, resource, **options)
    task = asyncio.create_task(informer.run(), name="informer")
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await informer.wait_synced()
        yield informer
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def service_account(path: Path, server: ApiServer, token: str) -> dict[str, Any]:
    """Arguments of `KubeSession.in_cluster` for a pod whose service account lies at `path`."""
    (path / "ca.crt").write_text(server.ca_pem)
    (path / "token").write_text(f"{token}\n")
    host, port = server.url.removeprefix("https://").rsplit(":", 1)
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    return {"environ": environ, "service_account_dir": path}


def a_node(name: str, **labels: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels)},
    }
