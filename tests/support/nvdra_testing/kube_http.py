"""A small HTTP server that answers as a test says, path by path, for the client's side of HTTP."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from aiohttp import web

if TYPE_CHECKING:
    import ssl

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpKube:
    """Answers each path from its own queue; the last answer stays."""

    tls: ssl.SSLContext | None = None
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    _answers: defaultdict[str, deque[Handler]] = field(default_factory=lambda: defaultdict(deque))

    def on(self, path: str, *answers: Any) -> None:
        """Answer `path` with these, one after the other: objects, `a_status(...)`, handlers."""
        self._answers[path] += [as_handler(answer) for answer in answers]

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(_app(self._answer), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"{'https' if self.tls else 'http'}://localhost:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            Asked(
                request.method,
                request.raw_path.partition("?")[0],
                dict(request.query),
                dict(request.headers),
                await request.read(),
            )
        )
        answers = self._answers.get(request.path)
        if not answers:
            return await a_status(404, "NotFound", "not found")(request)
        handler = answers.popleft() if len(answers) > 1 else answers[0]
        return await handler(request)


def _app(handler: Handler) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return app


def as_handler(answer: Any) -> Handler:
    if callable(answer):
        handler: Handler = answer
        return handler

    async def handle(_: web.Request) -> web.Response:
        return web.json_response(answer)

    return handle


def a_status(
    code: int,
    reason: str = "",
    message: str = "",
    *,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Handler:
    """An error as the API server words it."""
    status = {"kind": "Status", "code": code, "reason": reason, "message": message, **more}

    async def handle(_: web.Request) -> web.Response:
        return web.json_response(status, status=code, headers=headers)

    return handle


def a_text(code: int, text: str) -> Handler:
    """An answer that is no JSON, as proxies give."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=code, text=text)

    return handle


def a_stream(*chunks: bytes, cut: bool = False) -> Handler:
    """A chunked answer; `cut` drops the connection instead of ending it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if cut:
            await dropped(request)
        return response

    return handle


async def dropped(request: web.Request) -> web.StreamResponse:
    """The connection is cut without an answer."""
    assert request.transport
    request.transport.abort()
    return web.Response()
