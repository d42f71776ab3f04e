"""What the session sends, and what comes of each kind of answer, against a small HTTP server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from nvdra_kube import errors
from nvdra_kube.api import Resource
from nvdra_kube.errors import ApiError
from nvdra_kube.resources import NODES, PODS
from nvdra_kube.session import KubeSession
from nvdra_testing.kube_http import HttpKube, a_status, a_text

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


async def test_get_asks_for_one_object(server: HttpKube, api: KubeSession) -> None:
    server.on(POD, {"kind": "Pod"})
    assert await api.get(PODS, "p", namespace="ns") == {"kind": "Pod"}
    assert server.asked[0].method == "GET"
    assert server.asked[0].headers["User-Agent"] == "tested/1"
    assert "Authorization" not in server.asked[0].headers


async def test_list_sends_selectors(server: HttpKube, api: KubeSession) -> None:
    server.on(ALL_PODS, {"items": []})
    await api.list(PODS, label_selector="a=b,c in (d,e)", field_selector="spec.nodeName=n+1")
    expected = {"labelSelector": "a=b,c in (d,e)", "fieldSelector": "spec.nodeName=n+1"}
    assert server.asked[0].query == expected


async def test_create_posts_to_the_namespace_of_the_body(
    server: HttpKube, api: KubeSession
) -> None:
    server.on("/api/v1/namespaces/ns/pods", {"kind": "Pod"})
    body = {"metadata": {"name": "p", "namespace": "ns"}}
    await api.create(PODS, body, dry_run=True)
    assert server.asked[0].method == "POST"
    assert server.asked[0].query == {"dryRun": "All"}
    assert json.loads(server.asked[0].body) == body


async def test_create_of_a_subresource_names_the_object(server: HttpKube, api: KubeSession) -> None:
    server.on(f"{POD}/binding", {"kind": "Status"})
    await api.create(PODS, {}, namespace="ns", name="p", subresource="binding")
    assert server.asked[0].path == f"{POD}/binding"


async def test_update_puts_where_the_metadata_says(server: HttpKube, api: KubeSession) -> None:
    server.on(f"{POD}/status", {})
    await api.update(PODS, {"metadata": {"name": "p", "namespace": "ns"}}, subresource="status")
    assert (server.asked[0].method, server.asked[0].path) == ("PUT", f"{POD}/status")


async def test_patch_says_its_type(server: HttpKube, api: KubeSession) -> None:
    server.on("/api/v1/nodes/n", {})
    await api.patch(
        NODES,
        "n",
        {"a": 1},
        patch_type="application/apply-patch+yaml",
        field_manager="me",
        force=True,
    )
    assert server.asked[0].headers["Content-Type"] == "application/apply-patch+yaml"
    assert server.asked[0].query == {"fieldManager": "me", "force": "true"}


async def test_delete_sends_its_preconditions(server: HttpKube, api: KubeSession) -> None:
    server.on(POD, {"kind": "Status"})
    await api.delete(PODS, "p", namespace="ns", uid="u", resource_version="9", grace_period_s=0)
    sent = json.loads(server.asked[0].body)
    assert sent["preconditions"] == {"uid": "u", "resourceVersion": "9"}
    assert sent["gracePeriodSeconds"] == 0


@pytest.mark.parametrize("name", ["", "..", "a/b", "."])
async def test_what_is_no_name_is_not_sent(server: HttpKube, api: KubeSession, name: str) -> None:
    with pytest.raises(errors.BadRequest, match="not the name"):
        await api.delete(PODS, name, namespace="ns")
    assert server.asked == []


async def test_odd_names_are_quoted(server: HttpKube, api: KubeSession) -> None:
    with pytest.raises(errors.NotFound):
        await api.get(NODES, "a?b#c%2f")
    assert server.asked[0].path == "/api/v1/nodes/a%3Fb%23c%252f"


async def test_a_path_prefix_of_the_server_is_kept(server: HttpKube) -> None:
    server.on("/k8s/clusters/c1/version", {"gitVersion": "v1.35.0-gke.1"})
    async with KubeSession.connect(f"{server.url}/k8s/clusters/c1/") as api:
        assert await api.server_version() == "v1.35.0-gke.1"


async def test_an_error_says_what_was_tried(server: HttpKube, api: KubeSession) -> None:
    server.on(POD, a_status(404, "NotFound", 'pods "p" not found'))
    with pytest.raises(errors.NotFound, match='get pods ns/p: pods "p" not found'):
        await api.get(PODS, "p", namespace="ns")


async def test_a_conflict_is_typed(server: HttpKube, api: KubeSession) -> None:
    server.on("/api/v1/nodes/n", a_status(409, "Conflict", "changed"))
    with pytest.raises(errors.Conflict) as caught:
        await api.update(NODES, {"metadata": {"name": "n"}})
    assert type(caught.value) is errors.Conflict


async def test_a_redirect_is_not_followed(server: HttpKube, api: KubeSession) -> None:
    server.on(POD, a_status(302, headers={"Location": server.url + ALL_PODS}))
    with pytest.raises(ApiError, match="HTTP 302"):
        await api.get(PODS, "p", namespace="ns")
    assert len(server.asked) == 1


@pytest.mark.parametrize("text", ["<html>", "", "[]", "null"])
async def test_an_answer_that_is_no_object_is_an_error(
    server: HttpKube, api: KubeSession, text: str
) -> None:
    server.on(POD, a_text(200, text))
    with pytest.raises(errors.ServerError, match="no JSON"):
        await api.get(PODS, "p", namespace="ns")


async def test_unknown_fields_and_big_objects_survive(server: HttpKube, api: KubeSession) -> None:
    body = {"kind": "Pod", "future": {"x": ["y" * 3_000_000]}}
    server.on(POD, body)
    assert await api.get(PODS, "p", namespace="ns") == body


def test_a_group_resource_has_its_path() -> None:
    resource = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
    path = resource.path("c", namespace="ns", subresource="status")
    assert path == "/apis/resource.k8s.io/v1/namespaces/ns/resourceclaims/c/status"
