"""Which calls the session repeats, and when it gives up, against a small HTTP server."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from nvdra_kube import errors
from nvdra_kube.resources import PODS, RESOURCE_CLAIMS
from nvdra_kube.session import Exchange, KubeSession
from nvdra_testing.kube_http import HttpKube, a_status, a_stream, dropped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POD = "/api/v1/namespaces/ns/pods/p"
ALL_PODS = "/api/v1/pods"


@pytest.fixture
async def server() -> AsyncIterator[HttpKube]:
    async with HttpKube() as server:
        yield server


@pytest.fixture
async def api(server: HttpKube) -> AsyncIterator[KubeSession]:
    async with KubeSession.connect(server.url, user_agent="tested/1", timeout_s=5) as api:
        yield api


async def test_a_busy_server_is_asked_again(server: HttpKube, api: KubeSession) -> None:
    server.on(POD, a_status(429, headers={"Retry-After": "0.01"}), {"kind": "Pod"})
    assert await api.update(PODS, {"metadata": {"name": "p", "namespace": "ns"}})
    assert len(server.asked) == 2


async def test_a_wish_beyond_the_deadline_is_an_error(server: HttpKube, api: KubeSession) -> None:
    server.on(POD, a_status(429, headers={"Retry-After": "60"}))
    with pytest.raises(errors.TooManyRequests) as caught:
        await api.get(PODS, "p", namespace="ns")
    assert caught.value.retry_after_s == 60
    assert len(server.asked) == 1


async def test_a_server_that_stays_busy_is_given_up_when_its_wish_leaves_no_time(
    server: HttpKube,
) -> None:
    # The last wish would fit into the whole time, and does not fit into what is left of it.
    wishes = ("0.01", "0.01", "0.01", "0.01", "19.99")
    server.on(POD, *(a_status(429, headers={"Retry-After": wish}) for wish in wishes))
    async with KubeSession.connect(server.url, timeout_s=20) as api:
        with pytest.raises(errors.TooManyRequests):
            await api.get(PODS, "p", namespace="ns")
    assert len(server.asked) == len(wishes)


async def test_a_starting_server_is_asked_again_for_reading(
    server: HttpKube, api: KubeSession
) -> None:
    server.on(POD, a_status(503, headers={"Retry-After": "0.01"}), {"kind": "Pod"})
    assert await api.get(PODS, "p", namespace="ns") == {"kind": "Pod"}


async def test_a_write_is_not_repeated_on_server_trouble(
    server: HttpKube, api: KubeSession
) -> None:
    server.on(ALL_PODS, a_status(503, headers={"Retry-After": "0.01"}))
    with pytest.raises(errors.ServerError):
        await api.create(PODS, {})
    assert len(server.asked) == 1


async def test_reading_survives_a_dropped_connection(server: HttpKube, api: KubeSession) -> None:
    server.on(POD, dropped, {"kind": "Pod"})
    assert await api.get(PODS, "p", namespace="ns") == {"kind": "Pod"}


async def test_a_create_on_a_dropped_connection_is_an_error(
    server: HttpKube, api: KubeSession
) -> None:
    server.on(ALL_PODS, dropped)
    with pytest.raises(errors.Unreachable, match="create pods: cannot talk to http"):
        await api.create(PODS, {})
    assert len(server.asked) == 1


async def test_an_answer_cut_in_the_middle_is_an_error(server: HttpKube, api: KubeSession) -> None:
    server.on(POD, a_stream(b'{"kind": ', cut=True))
    with pytest.raises(errors.Unreachable):
        await api.get(PODS, "p", namespace="ns")


async def test_nobody_listening_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with KubeSession.connect(f"http://127.0.0.1:{port}") as api:
        with pytest.raises(errors.Unreachable, match=f"127.0.0.1:{port}"):
            await api.server_version()


async def test_a_server_that_never_answers_is_unreachable(server: HttpKube) -> None:
    silence = asyncio.Event()

    async def silent(_: web.Request) -> web.Response:
        await silence.wait()
        return web.Response()

    server.on("/version", silent)
    async with KubeSession.connect(server.url, timeout_s=0.1) as api:
        with pytest.raises(errors.Unreachable, match=r"no answer from http.* within 0.1 s"):
            await api.server_version()
    silence.set()


async def test_each_exchange_is_observed(server: HttpKube) -> None:
    seen: list[Exchange] = []
    server.on(POD, a_status(429, headers={"Retry-After": "0.01"}), {"kind": "Pod"})
    async with KubeSession.connect(server.url, observe=seen.append) as api:
        await api.get(PODS, "p", namespace="ns")
    assert [(one.verb, one.resource, one.status) for one in seen] == [
        ("get", "pods", 429),
        ("get", "pods", 200),
    ]


async def test_a_failed_connection_is_observed_too() -> None:
    seen: list[Exchange] = []
    async with KubeSession.connect("http://127.0.0.1:1", observe=seen.append) as api:
        with pytest.raises(errors.Unreachable):
            await api.list(RESOURCE_CLAIMS)
    assert [(one.verb, one.status) for one in seen] == [("list", 0)]
