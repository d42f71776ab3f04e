"""The HTTP endpoint: metrics for Prometheus, /healthz and /readyz for kubelet and people."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

from nvdra_kube.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from prometheus_client import CollectorRegistry

log = structlog.get_logger(__name__)


@asynccontextmanager
async def http_endpoint(
    address: str,
    *,
    metrics_path: str,
    registry: CollectorRegistry,
    healthy: Callable[[], str],
    ready: Callable[[], str],
) -> AsyncIterator[int]:
    """Serve on `address` (HOST:PORT, host may be empty) until the context ends; yields the port.

    `healthy` and `ready` return what is wrong, or an empty string. Raises `ConfigurationError`
    when the address cannot be used.
    """
    app = web.Application()
    if metrics_path:
        app.router.add_get("/" + metrics_path.lstrip("/"), make_aiohttp_handler(registry))
    app.router.add_get("/healthz", _probe(healthy))
    app.router.add_get("/readyz", _probe(ready))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        yield await _listen(runner, address)
    finally:
        await runner.cleanup()


def _probe(check: Callable[[], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(text=wrong or "ok", status=503 if wrong else 200)

    return answer


async def _listen(runner: web.AppRunner, address: str) -> int:
    host, _, port = address.rpartition(":")
    try:
        site = web.TCPSite(runner, host.strip("[]") or None, int(port))
        await site.start()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"cannot serve HTTP on {address!r}: {error}; "
            "give --http-endpoint a free HOST:PORT, or leave it empty"
        ) from error
    listening: int = runner.addresses[0][1]
    log.info("serving metrics and health", port=listening)
    return listening
