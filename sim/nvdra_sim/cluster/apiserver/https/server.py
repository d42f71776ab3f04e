"""The HTTPS front of a store: what kubectl, agents and operators talk to."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from nvdra_kube.errors import ApiError, Unauthorized
from nvdra_sim.cluster.apiserver import refusals
from nvdra_sim.cluster.apiserver.bodies import decode, encode
from nvdra_sim.cluster.apiserver.front import Call, Front
from nvdra_sim.cluster.apiserver.https.discovery import discover, version_document
from nvdra_sim.cluster.apiserver.https.routing import find_place, make_call
from nvdra_sim.cluster.apiserver.https.tables import table_of, wants_table
from nvdra_sim.cluster.apiserver.https.tls import issue_identity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from nvdra_sim.cluster.apiserver.store import ClusterStore

    PodLogs = Callable[[str, str, str], str]

_log = structlog.get_logger()

_MAX_BODY = 3 * 1024 * 1024
_LAST_ANSWERS_S = 0.5
_PUBLIC = frozenset({"/version", "/livez", "/readyz", "/healthz"})
# An empty document: clients then ask OpenAPI v3, or leave validation to the server.
_OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_PROBES = _PUBLIC - {"/version"}


class ApiServer:
    """Serves a store over HTTPS; a context manager around its life.

    `token` is the bearer token of the cluster administrator; `tokens` maps further ones to user
    names. `pod_logs` is asked for (namespace, pod, container), "" meaning the only container, and
    raises `LookupError` when there is none.
    """

    def __init__(
        self,
        store: ClusterStore,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tokens: Mapping[str, str] | None = None,
        pod_logs: PodLogs | None = None,
    ) -> None:
        self.store = store
        self.token = secrets.token_hex(16)
        self.tokens = {**(tokens or {}), self.token: "admin"}
        self.ca_pem = ""
        self.port = port
        self._host = host
        self._pod_logs = pod_logs
        self._front = Front(store)
        self._runner: web.ServerRunner | None = None
        self._streams: set[asyncio.Task[object]] = set()

    @property
    def url(self) -> str:
        return f"https://{self._host}:{self.port}"

    def kubeconfig(self) -> str:
        """A kubeconfig of the administrator; JSON, which is YAML too."""
        authority = base64.b64encode(self.ca_pem.encode()).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "nvdra",
            "clusters": [
                {
                    "name": "nvdra",
                    "cluster": {"server": self.url, "certificate-authority-data": authority},
                }
            ],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "nvdra", "context": {"cluster": "nvdra", "user": "admin"}}],
        }
        return json.dumps(document, indent=2) + "\n"

    async def __aenter__(self) -> Self:
        identity = await asyncio.to_thread(issue_identity, self._host)
        context = await asyncio.to_thread(identity.context)
        self.ca_pem = identity.ca_pem
        server = web.Server(self._answer, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=_LAST_ANSWERS_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        _log.info("api server listening", url=self.url, version=self.store.profile.version)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in self._streams:
            stream.cancel()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._respond(request)
        except ApiError as error:
            return _refusal(error)
        except web.HTTPException as error:
            return _refusal(refusals.for_status(error.status, error.reason))
        except ConnectionResetError:
            raise  # The client went while it was being answered.
        except Exception:
            _log.exception("api call failed", method=request.method, path=request.path)
            return _refusal(refusals.for_status(500, "the API server failed; see its log"))

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path not in _PUBLIC:
            self._authenticate(request)
        if path in _PROBES:
            return web.Response(text="ok")
        if path == "/version":
            return _json(encode(version_document(self.store.profile)))
        if path == "/openapi/v2":
            return web.Response(body=b"", content_type=_OPENAPI_V2)
        place = find_place(self.store.catalog, path)
        if place is None:
            document = discover(self.store.catalog, path) if request.method == "GET" else None
            if document is None:
                raise refusals.no_such_resource()
            return _json(encode(document))
        raw = await _read(request)
        call = make_call(
            place, request.method, request.query, request.headers.get("Content-Type", ""), raw
        )
        if call.verb == "watch":
            return await self._stream(request, call)
        if call.subresource == "log":
            return self._log_of(call, request.query.get("container", ""))
        return await self._serve(request, call)

    def _authenticate(self, request: web.BaseRequest) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token not in self.tokens:
            raise Unauthorized("Unauthorized", status=401, reason="Unauthorized")

    async def _serve(self, request: web.BaseRequest, call: Call) -> web.Response:
        answer = await self._front.serve(call)
        raw = answer.raw
        if call.verb in ("get", "list") and wants_table(request.headers.get("Accept", "")):
            raw = encode(table_of(call.kind, decode(raw), now=self.store.now()))
        response = _json(raw, status=answer.status)
        for warning in answer.warnings:
            response.headers.add("Warning", f"299 - {json.dumps(warning)}")
        return response

    async def _stream(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        lines = await self._front.watch(call)
        as_table = wants_table(request.headers.get("Accept", ""))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        with self._ended_on_close():
            await response.prepare(request)
            async for line in _or_error(lines):
                text = self._line_as_table(call, line) if as_table else line
                await response.write(text + b"\n")
            await response.write_eof()
        return response

    @contextmanager
    def _ended_on_close(self) -> Iterator[None]:
        """Streams would hold up the end of the server until their own."""
        task = asyncio.current_task()
        assert task, "requests are served in tasks"
        self._streams.add(task)
        try:
            yield
        finally:
            self._streams.discard(task)

    def _line_as_table(self, call: Call, line: bytes) -> bytes:
        event = decode(line)
        if event["type"] not in ("BOOKMARK", "ERROR"):
            event["object"] = table_of(call.kind, event["object"], now=self.store.now())
        return encode(event)

    def _log_of(self, call: Call, container: str) -> web.Response:
        self.store.get(call.kind, call.name, namespace=call.namespace)
        if self._pod_logs is None:
            raise refusals.for_status(501, "this API server has no kubelets to ask for logs")
        try:
            return web.Response(text=self._pod_logs(call.namespace, call.name, container))
        except LookupError as exc:
            raise refusals.bad_request(
                f"no log of container {container!r} in pod {call.namespace}/{call.name}: {exc}"
            ) from exc


async def _read(request: web.BaseRequest) -> bytes:
    if not request.body_exists:
        return b""
    raw, size = bytearray(), 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        # What is too much is read to its end all the same: else the client never sees the answer.
        if size <= _MAX_BODY:
            raw += chunk
    if size > _MAX_BODY:
        raise refusals.for_status(413, f"Request entity too large: limit is {_MAX_BODY}")
    return bytes(raw)


async def _or_error(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a watch; a refusal in the middle becomes the last line."""
    try:
        async for line in lines:
            yield line
    except ApiError as error:
        yield encode({"type": "ERROR", "object": refusals.status_of(error)})


def _json(raw: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=raw, status=status, content_type="application/json")


def _refusal(error: ApiError) -> web.Response:
    response = _json(encode(refusals.status_of(error)), status=error.status or 500)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return response
