"""The embedded API server on the wire: TLS, tokens, paths, media types, streams, discovery."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml

from nvdra_sim.cluster.apiserver import ApiServer, ClusterStore, Fault
from nvdra_testing.dra_objects import a_device, a_pod, a_slice
from nvdra_testing.server_objects import a_config_map, a_definition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_kube.api import Body

MAPS = "/api/v1/namespaces/default/configmaps"
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


@pytest.fixture
def store() -> ClusterStore:
    return ClusterStore()


@asynccontextmanager
async def connected(
    store: ClusterStore, *, token: str | None = None, **options: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP client of a server that serves the store."""
    async with ApiServer(store, **options) as server, client_of(server, token=token) as session:
        yield session


def client_of(server: ApiServer, *, token: str | None = None) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cadata=server.ca_pem)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    headers = {"Authorization": f"Bearer {server.token if token is None else token}"}
    connector = aiohttp.TCPConnector(ssl=context)
    return aiohttp.ClientSession(server.url, connector=connector, headers=headers)


@pytest.fixture
async def http(store: ClusterStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with connected(store) as session:
        yield session


async def created(http: aiohttp.ClientSession, path: str, body: Body) -> Body:
    async with http.post(path, json=body) as answer:
        assert answer.status == 201, await answer.text()
        result: Body = await answer.json()
        return result


async def test_the_certificate_stands_a_strict_check(http: aiohttp.ClientSession) -> None:
    async with http.get("/version") as answer:
        assert (await answer.json())["gitVersion"] == "v1.36.3"


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_without_a_token_there_is_no_answer(store: ClusterStore, token: str) -> None:
    async with connected(store, token=token) as http, http.get(MAPS) as answer:
        assert answer.status == 401
        assert (await answer.json())["reason"] == "Unauthorized"


async def test_probes_need_no_token(store: ClusterStore) -> None:
    async with connected(store, token="") as http, http.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok")


async def test_further_tokens_can_be_given(store: ClusterStore) -> None:
    async with (
        connected(store, token="agent-token", tokens={"agent-token": "agent"}) as http,
        http.get(MAPS) as answer,
    ):
        assert answer.status == 200


async def test_objects_travel_as_json(http: aiohttp.ClientSession) -> None:
    body = await created(http, MAPS, a_config_map(a="1"))
    async with http.get(f"{MAPS}/config") as answer:
        assert answer.content_type == "application/json"
        assert await answer.json() == body


async def test_objects_may_be_sent_as_yaml(http: aiohttp.ClientSession) -> None:
    text = "metadata: {name: config}\ndata: {when: '2026-01-01'}\n"
    headers = {"Content-Type": "application/yaml"}
    async with http.post(MAPS, data=text, headers=headers) as answer:
        assert (await answer.json())["data"] == {"when": "2026-01-01"}


async def test_dates_in_yaml_stay_text(http: aiohttp.ClientSession) -> None:
    text = "metadata: {name: config}\ndata: {when: 2026-01-01}\n"
    headers = {"Content-Type": "application/yaml"}
    async with http.post(MAPS, data=text, headers=headers) as answer:
        assert answer.status == 201


@pytest.mark.parametrize(
    ("content_type", "data", "status", "message"),
    [
        ("application/json", b"{", 400, "not valid JSON"),
        ("application/yaml", b"a: [", 400, "not valid YAML"),
        ("application/json", b"", 400, "body is empty"),
        ("application/json", b"[]", 400, "must be a JSON object"),
        ("application/vnd.kubernetes.protobuf", b"k8s", 415, "unknown format"),
    ],
)
async def test_malformed_bodies_are_told(
    http: aiohttp.ClientSession, content_type: str, data: bytes, status: int, message: str
) -> None:
    async with http.post(MAPS, data=data, headers={"Content-Type": content_type}) as answer:
        assert answer.status == status
        assert message in (await answer.json())["message"]


async def test_bodies_beyond_3_mib_are_refused(http: aiohttp.ClientSession) -> None:
    body = io.BytesIO(json.dumps(a_config_map(a="x" * 3 * 2**20)).encode())
    async with http.post(MAPS, data=body, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 413


async def test_a_refusal_is_a_status_object(http: aiohttp.ClientSession) -> None:
    async with http.get(f"{MAPS}/nothing") as answer:
        assert await answer.json() == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'configmaps "nothing" not found',
            "reason": "NotFound",
            "details": {"name": "nothing", "kind": "configmaps"},
            "code": 404,
        }


async def test_throttling_has_its_header(http: aiohttp.ClientSession, store: ClusterStore) -> None:
    store.faults.add(Fault(status=429, retry_after_s=7.0))
    async with http.get(MAPS) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        assert (await answer.json())["details"]["retryAfterSeconds"] == 7


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/apis/nobody.example.com/v1", 404),
        ("GET", "/apis/resource.k8s.io/v1alpha3/resourceslices", 404),
        ("GET", f"{MAPS}/a/b/c", 404),
        ("GET", f"{MAPS}/a/status", 404),
        ("POST", "/api/v1/pods", 404),
        ("PUT", MAPS, 405),
        ("POST", f"{MAPS}/x", 405),
        ("OPTIONS", MAPS, 405),
    ],
)
async def test_wrong_doors_stay_shut(
    http: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with http.request(method, path, json={}) as answer:
        assert answer.status == status


async def test_unknown_fields_are_warned_about(http: aiohttp.ClientSession) -> None:
    async with http.post("/api/v1/namespaces/default/pods", json=a_pod(nodeSelektor={})) as answer:
        assert answer.status == 201
        assert 'unknown field \\"spec.nodeSelektor\\"' in answer.headers["Warning"]


async def test_strict_clients_get_an_error_instead(http: aiohttp.ClientSession) -> None:
    path = "/api/v1/namespaces/default/pods?fieldValidation=Strict"
    async with http.post(path, json=a_pod(nodeSelektor={})) as answer:
        assert answer.status == 400
        assert "strict decoding error" in (await answer.json())["message"]


async def test_a_patch_is_chosen_by_media_type(http: aiohttp.ClientSession) -> None:
    await created(http, MAPS, a_config_map(a="1"))
    headers = {"Content-Type": "application/json-patch+json"}
    patch = [{"op": "remove", "path": "/data/a"}]
    async with http.patch(f"{MAPS}/config", json=patch, headers=headers) as answer:
        assert (await answer.json())["data"] == {}


async def test_apply_speaks_yaml(http: aiohttp.ClientSession) -> None:
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}})
    headers = {"Content-Type": "application/apply-patch+yaml"}
    path = f"{MAPS}/config?fieldManager=me"
    async with http.patch(path, data=text, headers=headers) as answer:
        assert answer.status == 201
        assert (await answer.json())["metadata"]["managedFields"][0]["manager"] == "me"


async def test_a_delete_answers_with_success(http: aiohttp.ClientSession) -> None:
    await created(http, MAPS, a_config_map())
    async with http.delete(f"{MAPS}/config") as answer:
        body = await answer.json()
    assert (body["status"], body["details"]["name"]) == ("Success", "config")


async def test_delete_options_are_read(http: aiohttp.ClientSession) -> None:
    await created(http, MAPS, a_config_map())
    options = {"kind": "DeleteOptions", "preconditions": {"uid": "other"}}
    async with http.delete(f"{MAPS}/config", json=options) as answer:
        assert answer.status == 409
    async with http.delete(f"{MAPS}/config", json={"kind": "DeleteOptions", "dryRun": ["All"]}):
        pass
    async with http.get(f"{MAPS}/config") as answer:
        assert answer.status == 200


async def test_lists_come_in_pages(http: aiohttp.ClientSession) -> None:
    for name in "abc":
        await created(http, MAPS, a_config_map(name))
    names, more = [], ""
    while True:
        async with http.get(MAPS, params={"limit": "2", "continue": more}) as answer:
            page = await answer.json()
        names += [item["metadata"]["name"] for item in page["items"]]
        more = page["metadata"].get("continue", "")
        if not more:
            break
    assert names == ["a", "b", "c"]


async def test_a_watch_is_a_stream_of_lines(
    http: aiohttp.ClientSession, store: ClusterStore
) -> None:
    params = {"watch": "1", "resourceVersion": str(store.revision), "timeoutSeconds": "300"}
    async with http.get(MAPS, params=params) as answer:
        await created(http, MAPS, a_config_map("a"))
        first = json.loads(await answer.content.readline())
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")


async def test_a_lost_history_is_an_error_in_the_stream(
    http: aiohttp.ClientSession, store: ClusterStore
) -> None:
    old = str(store.revision)
    await created(http, MAPS, a_config_map("a"))
    store.compact()
    async with http.get(MAPS, params={"watch": "1", "resourceVersion": old}) as answer:
        assert answer.status == 200
        line = json.loads(await answer.content.readline())
        assert (line["type"], line["object"]["code"]) == ("ERROR", 410)
        assert line["object"]["reason"] == "Expired"


async def test_bookmarks_are_sent_to_who_wants_them(
    http: aiohttp.ClientSession, store: ClusterStore
) -> None:
    params = {"watch": "1", "resourceVersion": str(store.revision), "timeoutSeconds": "1"}
    async with http.get(MAPS, params=params) as answer:
        assert await answer.read() == b""
    async with http.get(MAPS, params={**params, "allowWatchBookmarks": "true"}) as answer:
        assert json.loads(await answer.read())["type"] == "BOOKMARK"


async def test_a_watch_can_begin_with_the_list(
    http: aiohttp.ClientSession, store: ClusterStore
) -> None:
    await created(http, MAPS, a_config_map("a"))
    params = {
        "watch": "1",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    async with http.get(MAPS, params=params) as answer:
        lines = [json.loads(await answer.content.readline()) for _ in range(2)]
    assert [line["type"] for line in lines] == ["ADDED", "BOOKMARK"]
    assert lines[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_closing_the_server_ends_its_watches(store: ClusterStore) -> None:
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        async with ApiServer(store) as server:
            http = await stack.enter_async_context(client_of(server))
            path = f"{MAPS}?watch=1&resourceVersion=0"
            answer = await stack.enter_async_context(http.get(path))
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_slices_are_served_in_the_version_of_the_path(http: aiohttp.ClientSession) -> None:
    await created(http, SLICES, a_slice([a_device("gpu-0")], name="s"))
    async with http.get("/apis/resource.k8s.io/v1beta1/resourceslices/s") as answer:
        body = await answer.json()
    assert body["apiVersion"] == "resource.k8s.io/v1beta1"
    assert "basic" in body["spec"]["devices"][0]


async def test_discovery_names_groups_versions_and_resources(http: aiohttp.ClientSession) -> None:
    async with http.get("/apis") as answer:
        groups = {group["name"]: group for group in (await answer.json())["groups"]}
    versions = [version["version"] for version in groups["resource.k8s.io"]["versions"]]
    assert versions == ["v1", "v1beta2", "v1beta1"]
    async with http.get("/apis/resource.k8s.io/v1") as answer:
        names = {found["name"] for found in (await answer.json())["resources"]}
    assert {"resourceclaims", "resourceclaims/status", "resourceslices"} <= names


async def test_discovery_follows_definitions(http: aiohttp.ClientSession) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await created(http, path, a_definition())
    async with http.get("/apis/example.com/v1") as answer:
        [found, _] = (await answer.json())["resources"]
    assert (found["kind"], found["shortNames"]) == ("Widget", ["wd"])


async def test_lists_can_be_tables(http: aiohttp.ClientSession) -> None:
    await created(http, "/api/v1/namespaces/default/pods", a_pod())
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    async with http.get("/api/v1/pods", headers=headers) as answer:
        table = await answer.json()
    names = [column["name"] for column in table["columnDefinitions"]]
    cells = dict(zip(names, table["rows"][0]["cells"], strict=True))
    assert (cells["Name"], cells["Ready"], cells["Status"]) == ("pod", "0/1", "Pending")


async def test_logs_come_from_the_kubelets(store: ClusterStore) -> None:
    def logs(namespace: str, pod: str, container: str) -> str:
        if container == "nobody":
            raise KeyError(container)
        return f"{namespace}/{pod}/{container}: hello\n"

    path = "/api/v1/namespaces/default/pods"
    async with connected(store, pod_logs=logs) as http:
        await created(http, path, a_pod())
        async with http.get(f"{path}/pod/log", params={"container": "ctr"}) as answer:
            assert await answer.text() == "default/pod/ctr: hello\n"
        async with http.get(f"{path}/pod/log", params={"container": "nobody"}) as answer:
            assert answer.status == 400


async def test_the_kubeconfig_is_complete(store: ClusterStore) -> None:
    async with ApiServer(store) as server:
        document = yaml.safe_load(server.kubeconfig())
        assert document["clusters"][0]["cluster"]["server"] == server.url
        assert document["users"][0]["user"]["token"] == server.token


async def test_a_port_can_be_chosen(store: ClusterStore) -> None:
    async with ApiServer(store) as first:
        port = first.port
    async with ApiServer(store, port=port) as second:
        assert second.url == f"https://127.0.0.1:{port}"
