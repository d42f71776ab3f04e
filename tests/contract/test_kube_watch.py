"""Watch streams as they come over HTTP, whole and broken."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from nvdra_kube import errors
from nvdra_kube.resources import PODS
from nvdra_kube.session import KubeSession
from nvdra_testing.kube_http import HttpKube, a_status, a_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_kube.api import WatchEvent

ALL_PODS = "/api/v1/pods"


@pytest.fixture
async def server() -> AsyncIterator[HttpKube]:
    async with HttpKube() as server:
        yield server


@pytest.fixture
async def api(server: HttpKube) -> AsyncIterator[KubeSession]:
    async with KubeSession.connect(server.url, user_agent="tested/1", timeout_s=5) as api:
        yield api


def a_line(type: str, **body: Any) -> bytes:
    return json.dumps({"type": type, "object": body}).encode() + b"\n"


async def watched(api: KubeSession, **kwargs: Any) -> list[WatchEvent]:
    async with aclosing(api.watch(PODS, resource_version="5", **kwargs)) as events:
        return [event async for event in events]


async def test_a_watch_brings_events_until_the_server_ends_it(
    server: HttpKube, api: KubeSession
) -> None:
    lines = a_line("ADDED", a=1) + a_line("BOOKMARK", b=2) + a_line("DELETED", c=3)
    server.on(ALL_PODS, a_stream(lines[:20], lines[20:]))
    events = await watched(api, timeout_s=30, label_selector="x=y")
    assert [event.type for event in events] == ["ADDED", "BOOKMARK", "DELETED"]
    assert server.asked[0].query == {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "resourceVersion": "5",
        "timeoutSeconds": "30",
        "labelSelector": "x=y",
    }


async def test_events_of_megabytes_come_whole(server: HttpKube, api: KubeSession) -> None:
    server.on(ALL_PODS, a_stream(a_line("ADDED", big="x" * 4_000_000)))
    [event] = await watched(api)
    assert len(event.object["big"]) == 4_000_000


async def test_an_expired_version_in_the_stream_is_gone(server: HttpKube, api: KubeSession) -> None:
    error = a_line("ERROR", kind="Status", code=410, reason="Expired", message="too old")
    server.on(ALL_PODS, a_stream(a_line("ADDED") + error))
    with pytest.raises(errors.Gone, match="watch pods: too old"):
        await watched(api)


async def test_an_expired_version_at_the_start_is_gone(server: HttpKube, api: KubeSession) -> None:
    server.on(ALL_PODS, a_status(410, "Expired", "too old"))
    with pytest.raises(errors.Gone):
        await watched(api)


async def test_another_error_in_the_stream_is_typed(server: HttpKube, api: KubeSession) -> None:
    server.on(ALL_PODS, a_stream(a_line("ERROR", kind="Status", code=500, message="etcd")))
    with pytest.raises(errors.ServerError, match="etcd"):
        await watched(api)


async def test_a_type_from_the_future_is_skipped(server: HttpKube, api: KubeSession) -> None:
    server.on(ALL_PODS, a_stream(a_line("PARTED") + a_line("ADDED")))
    assert [event.type for event in await watched(api)] == ["ADDED"]


@pytest.mark.parametrize("line", [b"{}\n", b"[]\n", b"nonsense\n", b'{"type":"ADDED"}\n'])
async def test_a_malformed_line_is_an_error(
    server: HttpKube, api: KubeSession, line: bytes
) -> None:
    server.on(ALL_PODS, a_stream(line))
    with pytest.raises(errors.ServerError, match="watch pods"):
        await watched(api)


async def test_a_cut_stream_is_unreachable(server: HttpKube, api: KubeSession) -> None:
    server.on(ALL_PODS, a_stream(a_line("ADDED"), cut=True))
    with pytest.raises(errors.Unreachable):
        await watched(api)


async def test_a_stream_that_ends_inside_an_event_is_unreachable(
    server: HttpKube, api: KubeSession
) -> None:
    server.on(ALL_PODS, a_stream(a_line("ADDED"), b'{"type": "MOD'))
    with pytest.raises(errors.Unreachable, match="in the middle"):
        await watched(api)


async def test_a_deaf_stream_is_noticed(server: HttpKube) -> None:
    silence = asyncio.Event()

    async def deaf(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await silence.wait()
        return response

    server.on(ALL_PODS, deaf)
    # Long enough for the answer's head to come first.
    async with KubeSession.connect(server.url, idle_timeout_s=2) as api:
        with pytest.raises(errors.Unreachable, match=r"nothing heard for 2 s"):
            await watched(api)
    silence.set()


async def test_a_watch_outlives_the_time_limit_of_calls(server: HttpKube) -> None:
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        asyncio.get_running_loop().call_later(2.5, release.set)
        await release.wait()
        await response.write(a_line("ADDED"))
        return response

    server.on(ALL_PODS, slow)
    # Long enough for the answer's head to come, which it does limit.
    async with KubeSession.connect(server.url, timeout_s=2) as api:
        assert len(await watched(api)) == 1


async def test_leaving_a_watch_closes_its_connection(server: HttpKube, api: KubeSession) -> None:
    left = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(a_line("ADDED"))
                await asyncio.sleep(0.01)
        except ConnectionError:
            left.set()
        return response

    server.on(ALL_PODS, endless)
    async with aclosing(api.watch(PODS, resource_version="5")) as events:
        await anext(events)
    async with asyncio.timeout(50):
        await left.wait()
