"""HTTP to one API server: time-outs, credentials, patience with 429, and typed errors.

Speaks in calls and bytes; what they mean is the session's business.
"""

from __future__ import annotations

import asyncio
import io
import random
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict

from yarl import URL

from nvdra_kube.errors import ApiError, TooManyRequests, Unreachable
from nvdra_kube.http_stack import aiohttp
from nvdra_kube.lines import LineSplitter
from nvdra_kube.statuses import error_from_answer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from nvdra_kube.access import Access

# A server keeps idle connections for 90 s; a TLS handshake saved is half of a call's time.
_KEEP_CONNECTION_S: Final = 60.0
_WAIT_AFTER_429_S: Final = 1.0
_READ_BUFFER: Final = 2**18
_LONG_BODY: Final = 2**20
_TROUBLE: Final = (aiohttp.ClientError, OSError)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One HTTP request and its answer, for metrics. `status` 0: there was no answer."""

    verb: str
    resource: str
    status: int
    duration_s: float


class Options(TypedDict, total=False):
    """Settings of a session.

    user_agent: what the audit log shows. timeout_s: for a whole call with its retries.
    connect_timeout_s: for TCP and TLS. idle_timeout_s: a watch that says nothing for so long is
    broken (a live server sends a bookmark each minute). trust_env: heed proxy variables.
    observe: called after each HTTP request.
    """

    user_agent: str
    timeout_s: float
    connect_timeout_s: float
    idle_timeout_s: float
    trust_env: bool
    observe: Callable[[Exchange], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `verb`, `resource` and `target` are for people and metrics."""

    verb: str
    method: str
    path: str
    resource: str
    target: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    content_type: str = "application/json"
    accept: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.target}".rstrip()


class Transport:
    """Sends calls. Open it as an async context; not to be shared between loops."""

    def __init__(self, access: Access, options: Options) -> None:
        self._access = access
        self._options = options
        self._timeout_s = options.get("timeout_s", 30.0)
        self._observe = options.get("observe", _ignore)
        self._base = access.url.rstrip("/")

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            ssl=self._access.tls or True,
            limit=0,
            keepalive_timeout=_KEEP_CONNECTION_S,
            socket_factory=_open_socket,
        )
        self._http = aiohttp.ClientSession(
            connector=connector,
            headers={
                "User-Agent": self._options.get("user_agent", "nvdra"),
                "Accept": "application/json",
            },
            trust_env=self._options.get("trust_env", False),
            read_bufsize=_READ_BUFFER,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def send(self, call: Call) -> bytes:
        """The content of a successful answer. Raises `ApiError`."""
        async with self._deadline(call) as deadline:
            response = await self._request(call, deadline, _limits(self._options))
            return await self._content(response, call)

    async def lines(self, call: Call) -> AsyncGenerator[bytes, None]:
        """The lines of an endless answer as they come. Raises `ApiError`."""
        idle_s = self._options.get("idle_timeout_s", 120.0)
        async with self._deadline(call) as deadline:
            response = await self._request(call, deadline, _limits(self._options, read_s=idle_s))
        splitter = LineSplitter()
        try:
            async for chunk in response.content.iter_any():
                for line in splitter.feed(chunk):
                    yield line
        except TimeoutError as error:
            raise Unreachable(f"{call}: nothing heard for {idle_s:g} s") from error
        except _TROUBLE as error:
            raise self._unreachable(call, error) from error
        finally:
            response.close()
        if splitter.pending:
            raise Unreachable(f"{call}: the stream ended in the middle of an event")

    @asynccontextmanager
    async def _deadline(self, call: Call) -> AsyncIterator[asyncio.Timeout]:
        try:
            async with asyncio.timeout(self._timeout_s) as deadline:
                yield deadline
        except TimeoutError as error:
            raise Unreachable(
                f"{call}: no answer from {self._base} within {self._timeout_s:g} s"
            ) from error

    async def _request(
        self, call: Call, deadline: asyncio.Timeout, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """A successful answer. Asks again where the server surely did nothing with the call."""
        may_log_in = True
        while True:
            authorization = await self._access.credentials.authorization()
            response = await self._exchange(call, limits, authorization)
            if response.status < 300:
                return response
            content = await self._content(response, call)
            error = error_from_answer(response.status, response.headers, content, call=str(call))
            if response.status == 401 and may_log_in:
                may_log_in = False
                await self._log_in(authorization, error)
            else:
                await _wait_as_wished(call, error, deadline)

    async def _log_in(self, refused: str, error: ApiError) -> None:
        """A token may have been rotated since it was read; the same one is refused for good."""
        self._access.credentials.refused()
        if await self._access.credentials.authorization() == refused:
            raise error

    async def _exchange(
        self, call: Call, limits: aiohttp.ClientTimeout, authorization: str
    ) -> aiohttp.ClientResponse:
        """One request on the wire; aiohttp repeats GET, PUT and DELETE on a dropped connection."""
        headers = {"Content-Type": call.content_type} if call.content is not None else {}
        if call.accept:
            headers["Accept"] = call.accept
        if authorization:
            headers["Authorization"] = authorization
        started_s, status = _now_s(), 0
        try:
            response = await self._http.request(
                call.method,
                URL(self._base + call.path, encoded=True),
                params=call.query,
                data=_payload(call.content),
                headers=headers,
                timeout=limits,
                allow_redirects=False,
                server_hostname=self._access.server_name,
                proxy=self._access.proxy,
            )
            status = response.status
        except _TROUBLE as error:
            raise self._unreachable(call, error) from error
        finally:
            self._observe(Exchange(call.verb, call.resource, status, _now_s() - started_s))
        return response

    async def _content(self, response: aiohttp.ClientResponse, call: Call) -> bytes:
        try:
            return await response.read()
        except _TROUBLE as error:
            raise self._unreachable(call, error) from error

    def _unreachable(self, call: Call, error: Exception) -> Unreachable:
        why = str(error) or type(error).__name__
        return Unreachable(f"{call}: cannot talk to {self._base}: {why}")


async def _wait_as_wished(call: Call, error: ApiError, deadline: asyncio.Timeout) -> None:
    """Sleep until the server may be asked again; raise `error` if it may not be, or not in time.

    A server does nothing on a 429. A 503 with a wish is repeated only for calls that read.
    """
    busy = isinstance(error, TooManyRequests)
    starting = call.method == "GET" and error.status == 503 and error.retry_after_s is not None
    if not busy and not starting:
        raise error
    wait_s = (error.retry_after_s or _WAIT_AFTER_429_S) * random.uniform(1.0, 1.1)
    end_s = deadline.when()
    if end_s is not None and _now_s() + wait_s >= end_s:
        raise error
    await asyncio.sleep(wait_s)


def _payload(content: bytes | None) -> bytes | io.BytesIO | None:
    # aiohttp writes bytes in one go and files in pieces; long ones would hold the loop up.
    return io.BytesIO(content) if content and len(content) > _LONG_BODY else content


def _limits(options: Options, *, read_s: float | None = None) -> aiohttp.ClientTimeout:
    """aiohttp's limits; the whole call's deadline spans retries and is set around them."""
    connect_s = options.get("connect_timeout_s", 10.0)
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=read_s)


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket that notices within a minute that the other machine is gone."""
    family, kind, protocol = address[:3]
    opened = socket.socket(family, kind, protocol)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return opened


def _ignore(_: Exchange) -> None:
    pass


def _now_s() -> float:
    return asyncio.get_running_loop().time()
