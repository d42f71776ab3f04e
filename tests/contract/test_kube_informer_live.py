"""Session, informer and recorder against the embedded API server: restarts, 410, 429, tokens."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from nvdra_kube import errors
from nvdra_kube.access import Access, tls_context
from nvdra_kube.events import EventRecorder
from nvdra_kube.resources import EVENTS, NODES
from nvdra_kube.session import Exchange, KubeSession
from nvdra_kube.tokens import FixedToken
from nvdra_sim.cluster.apiserver import ApiServer, ClusterStore, Fault, LocalApi
from nvdra_testing.kube_server import a_node, connected, following, service_account, until

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_kube.informer import Informer


@pytest.fixture
def store() -> ClusterStore:
    return ClusterStore()


def names(informer: Informer) -> set[str]:
    return {name for _, name in informer.items}


async def test_the_copy_follows(store: ClusterStore) -> None:
    async with connected(store) as api, following(api, NODES) as informer:
        await api.create(NODES, a_node("a"))
        await api.create(NODES, a_node("b"))
        await api.delete(NODES, "a")
        await until(lambda: names(informer) == {"b"})


async def test_a_restart_is_survived_and_its_deletes_are_noticed(store: ClusterStore) -> None:
    local = LocalApi(store)
    for name in ("a", "b"):
        await local.create(NODES, a_node(name))
    deleted: list[str] = []
    server = ApiServer(store)
    async with AsyncExitStack() as stack:
        async with server:
            api = await stack.enter_async_context(trusting_anybody(server))
            informer = await stack.enter_async_context(following(api, NODES))
        informer.subscribe(lambda change: deleted.append(change.key[1]))
        await local.delete(NODES, "a")
        await local.create(NODES, a_node("c"))
        store.compact()
        await stack.enter_async_context(server)
        await until(lambda: names(informer) == {"b", "c"})
    assert "a" in deleted


async def test_another_store_at_the_same_place_is_taken_over(store: ClusterStore) -> None:
    local = LocalApi(store)
    for name in ("a", "b", "c"):
        await local.create(NODES, a_node(name))
    async with AsyncExitStack() as stack:
        async with ApiServer(store) as server:
            api = await stack.enter_async_context(trusting_anybody(server))
            informer = await stack.enter_async_context(following(api, NODES))
        fresh = ClusterStore()
        await LocalApi(fresh).create(NODES, a_node("d"))
        again = ApiServer(fresh, port=server.port, tokens={server.token: "admin"})
        await stack.enter_async_context(again)
        await until(lambda: names(informer) == {"d"})


def trusting_anybody(server: ApiServer) -> KubeSession:
    """A session that outlives the server's certificate, which changes with each start."""

    async def access() -> Access:
        return Access(
            url=server.url, tls=tls_context(verify=False), credentials=FixedToken(server.token)
        )

    return KubeSession(access, {})


async def test_a_lost_history_is_listed_again(store: ClusterStore) -> None:
    async with connected(store) as api, following(api, NODES) as informer:
        fault = store.faults.add(Fault(verb="watch", status=410, count=1))
        await api.create(NODES, a_node("a"))
        await until(lambda: names(informer) == {"a"})
        store.compact()
        await api.create(NODES, a_node("b"))
        await until(lambda: names(informer) == {"a", "b"})
        store.faults.remove(fault)


async def test_the_first_list_is_repeated_until_it_works(store: ClusterStore) -> None:
    store.faults.add(Fault(verb="list", resource="nodes", status=500, count=3))
    async with connected(store) as api, following(api, NODES) as informer:
        assert names(informer) == set()


async def test_a_busy_server_is_waited_for(store: ClusterStore) -> None:
    seen: list[Exchange] = []
    store.faults.add(Fault(verb="create", status=429, retry_after_s=1, count=1))
    async with connected(store, observe=seen.append) as api:
        await api.create(NODES, a_node("n"))
    assert [exchange.status for exchange in seen] == [429, 201]


async def test_a_hanging_server_is_given_up(store: ClusterStore) -> None:
    store.faults.add(Fault(verb="get", hang=True))
    async with connected(store, timeout_s=0.3) as api:
        with pytest.raises(errors.Unreachable, match=r"get nodes n: no answer .* within 0.3 s"):
            await api.get(NODES, "n")


async def test_an_unknown_token_is_refused(store: ClusterStore) -> None:
    async with (
        ApiServer(store) as server,
        KubeSession.connect(server.url, ca_pem=server.ca_pem, token="wrong") as api,
    ):
        with pytest.raises(errors.Unauthorized, match="credentials"):
            await api.list(NODES)


async def test_a_rotated_token_is_picked_up(store: ClusterStore, tmp_path: Path) -> None:
    async with ApiServer(store, tokens={"old": "pod"}) as server:
        pod = service_account(tmp_path, server, "old")
        async with KubeSession.in_cluster(**pod) as api:
            await api.list(NODES)
            del server.tokens["old"]
            server.tokens["new"] = "pod"
            (tmp_path / "token").write_text("new\n")
            assert await api.list(NODES)


async def test_the_servers_own_kubeconfig_works(store: ClusterStore, tmp_path: Path) -> None:
    async with ApiServer(store) as server:
        path = tmp_path / "config"
        path.write_text(server.kubeconfig())
        async with KubeSession.from_kubeconfig(path) as api:
            assert await api.list(NODES)


async def test_recorded_events_are_kept_by_the_server(store: ClusterStore) -> None:
    async with connected(store) as api:
        node = await api.create(NODES, a_node("n"))
        async with EventRecorder(api, component="test", instance="n") as recorder:
            for _ in range(2):
                await recorder.event(node, type="Warning", reason="Broken", note="it is")
                await asyncio.sleep(0)
            await recorder.aclose(timeout_s=30)
        [event] = (await api.list(EVENTS, namespace="default"))["items"]
    assert event["involvedObject"]["uid"] == node["metadata"]["uid"]
    assert (event["reason"], event["count"]) == ("Broken", 2)
