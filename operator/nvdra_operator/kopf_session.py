"""Kopf's way to the API server: our credentials, our gate, our metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from nvdra_kube.http_stack import aiohttp
from nvdra_kube.transport import Exchange
from nvdra_operator import __version__
from nvdra_operator.gate import NotLeading
from nvdra_operator.resources import COMPUTE_DOMAINS

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.access import Access
    from nvdra_operator.gate import WriteGate

_VERBS: Final = {"GET": "list", "PATCH": "patch", "POST": "create", "DELETE": "delete"}
_READING: Final = ("GET", "HEAD", "OPTIONS")


def kopf_session(
    access: Access, gate: WriteGate, *, observe: Callable[[Exchange], None] = lambda _: None
) -> aiohttp.ClientSession:
    """For the loop that calls; Kopf closes it. `observe` is called after each request."""

    async def authorised(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        value = await access.credentials.authorization()
        if value:
            request.headers["Authorization"] = value
        began_s, status = time.monotonic(), 0
        try:
            response = await _sent(request, handler, gate)
            status = response.status
        finally:
            observe(_exchange(request, status, time.monotonic() - began_s))
        if response.status == 401:
            access.credentials.refused()
        return response

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=access.tls or True, limit=0),
        headers={"User-Agent": f"nvdra-controller/{__version__} kopf"},
        middlewares=(authorised,),
        read_bufsize=2**21,
    )


async def _sent(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType, gate: WriteGate
) -> aiohttp.ClientResponse:
    if request.method in _READING:
        return await handler(request)
    what = f"{request.method} {request.url.path}"
    try:
        return await gate.guard(what, lambda: handler(request))
    except NotLeading as error:
        # An error that Kopf knows: it waits in a line of the log, until it is stopped.
        raise aiohttp.ClientConnectionError(str(error)) from error


def _exchange(request: aiohttp.ClientRequest, status: int, duration_s: float) -> Exchange:
    """The request in the words of our own client."""
    verb = _VERBS.get(request.method, "get")
    if verb == "list" and request.url.query.get("watch"):
        verb = "watch"
    about_domains = COMPUTE_DOMAINS.plural in request.url.parts
    return Exchange(
        verb if about_domains else "get",
        COMPUTE_DOMAINS.plural if about_domains else "discovery",
        status,
        duration_s,
    )
