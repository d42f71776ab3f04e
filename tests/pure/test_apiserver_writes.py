"""Creating, updating and deleting on the embedded API server."""

from __future__ import annotations

import re

import pytest

from nvdra_kube.errors import AlreadyExists, BadRequest, Conflict, Forbidden, Invalid, NotFound
from nvdra_kube.resources import LEASES, NAMESPACES, NODES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_testing.dra_objects import a_claim, a_device, a_node, a_pod, a_slice
from nvdra_testing.server_objects import CONFIG_MAPS, a_bound_pod, a_config_map


@pytest.fixture
def store() -> ClusterStore:
    return ClusterStore(seed=1)


@pytest.fixture
def api(store: ClusterStore) -> LocalApi:
    return LocalApi(store)


async def test_a_new_object_gets_what_the_server_gives(api: LocalApi) -> None:
    meta = (await api.create(CONFIG_MAPS, a_config_map()))["metadata"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", meta["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", meta["creationTimestamp"])
    assert meta["resourceVersion"].isdecimal()


async def test_what_a_client_says_about_server_fields_is_ignored(api: LocalApi) -> None:
    body = a_config_map()
    body["metadata"] |= {"uid": "mine", "deletionTimestamp": "2020-01-01T00:00:00Z"}
    meta = (await api.create(CONFIG_MAPS, body))["metadata"]
    assert meta["uid"] != "mine"
    assert "deletionTimestamp" not in meta


async def test_a_resource_version_on_create_is_refused(api: LocalApi) -> None:
    body = a_config_map()
    body["metadata"]["resourceVersion"] = "7"
    with pytest.raises(BadRequest, match="resourceVersion should not be set"):
        await api.create(CONFIG_MAPS, body)


async def test_generated_names_are_the_prefix_and_five_letters(api: LocalApi) -> None:
    body = a_config_map()
    body["metadata"] = {"namespace": "default", "generateName": "x" * 80}
    name = (await api.create(CONFIG_MAPS, body))["metadata"]["name"]
    assert re.fullmatch(r"x{58}[bcdfghjklmnpqrstvwxz2456789]{5}", name)


async def test_a_name_is_needed(api: LocalApi) -> None:
    with pytest.raises(Invalid, match="name or generateName is required"):
        await api.create(CONFIG_MAPS, {"metadata": {"namespace": "default"}})


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "a" * 254, "a..b"])
async def test_names_follow_dns_rules(api: LocalApi, name: str) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await api.create(CONFIG_MAPS, a_config_map(name))


async def test_a_taken_name_says_whose_it_is(api: LocalApi) -> None:
    await api.create(RESOURCE_CLAIMS, a_claim())
    with pytest.raises(AlreadyExists) as caught:
        await api.create(RESOURCE_CLAIMS, a_claim())
    assert caught.value.message == 'resourceclaims.resource.k8s.io "claim" already exists'
    assert caught.value.details == {
        "name": "claim",
        "group": "resource.k8s.io",
        "kind": "resourceclaims",
    }


async def test_a_namespace_must_exist(api: LocalApi) -> None:
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await api.create(CONFIG_MAPS, a_config_map(namespace="nowhere"))


async def test_the_namespace_of_call_and_object_must_agree(api: LocalApi) -> None:
    with pytest.raises(BadRequest, match="does not match the namespace"):
        await api.create(CONFIG_MAPS, a_config_map(), namespace="kube-system")


async def test_a_wrong_kind_is_refused(api: LocalApi) -> None:
    with pytest.raises(BadRequest, match=r"\(v1, Pod\) do not match .* \(v1, ConfigMap\)"):
        await api.create(CONFIG_MAPS, {**a_config_map(), "apiVersion": "v1", "kind": "Pod"})


async def test_an_update_raises_the_resource_version(api: LocalApi) -> None:
    body = await api.create(CONFIG_MAPS, a_config_map(a="1"))
    after = await api.update(CONFIG_MAPS, {**body, "data": {"a": "2"}})
    assert int(after["metadata"]["resourceVersion"]) > int(body["metadata"]["resourceVersion"])


async def test_an_update_without_change_keeps_the_resource_version(api: LocalApi) -> None:
    body = await api.create(RESOURCE_SLICES, a_slice([a_device("gpu-0")]))
    assert await api.update(RESOURCE_SLICES, body) == body


async def test_the_second_of_two_writers_conflicts(api: LocalApi) -> None:
    body = await api.create(CONFIG_MAPS, a_config_map(a="1"))
    await api.update(CONFIG_MAPS, {**body, "data": {"a": "2"}})
    with pytest.raises(Conflict, match="the object has been modified"):
        await api.update(CONFIG_MAPS, {**body, "data": {"a": "3"}})


async def test_an_update_without_resource_version_wins(api: LocalApi) -> None:
    await api.create(CONFIG_MAPS, a_config_map(a="1"))
    after = await api.update(CONFIG_MAPS, a_config_map(a="2"))
    assert after["data"] == {"a": "2"}


async def test_a_lease_is_never_updated_blindly(api: LocalApi) -> None:
    await api.create(LEASES, {"metadata": {"name": "l", "namespace": "default"}, "spec": {}})
    with pytest.raises(Invalid, match="must be specified for an update"):
        await api.update(LEASES, {"metadata": {"name": "l", "namespace": "default"}})


async def test_an_update_of_another_life_conflicts(api: LocalApi) -> None:
    await api.create(CONFIG_MAPS, a_config_map())
    body = a_config_map()
    body["metadata"]["uid"] = "another"
    with pytest.raises(Conflict, match="UID in precondition: another"):
        await api.update(CONFIG_MAPS, body)


async def test_generation_rises_with_the_spec_only(api: LocalApi) -> None:
    body = await api.create(RESOURCE_SLICES, a_slice([a_device("gpu-0")]))
    body["metadata"]["labels"] = {"a": "b"}
    body = await api.update(RESOURCE_SLICES, body)
    assert body["metadata"]["generation"] == 1
    body["spec"]["devices"] = []
    body = await api.update(RESOURCE_SLICES, body)
    assert body["metadata"]["generation"] == 2


async def test_the_main_endpoint_leaves_the_status_alone(api: LocalApi) -> None:
    node = await api.create(NODES, a_node())
    assert "status" not in node
    node["status"] = {"phase": "x"}
    assert "status" not in await api.update(NODES, node)


async def test_the_status_endpoint_leaves_the_spec_alone(api: LocalApi) -> None:
    node = await api.create(NODES, a_node())
    node |= {"status": {"phase": "x"}, "spec": {"unschedulable": True}}
    after = await api.update(NODES, node, subresource="status")
    assert after["status"] == {"phase": "x"}
    assert after["spec"] == {}


async def test_the_status_endpoint_of_a_claim_takes_no_labels(api: LocalApi) -> None:
    claim = await api.create(RESOURCE_CLAIMS, a_claim())
    claim["metadata"]["labels"] = {"a": "b"}
    claim["metadata"]["finalizers"] = ["example.com/x"]
    after = await api.update(RESOURCE_CLAIMS, claim, subresource="status")
    assert after["metadata"].keys().isdisjoint({"labels", "finalizers"})


async def test_a_dry_run_answers_but_stores_nothing(api: LocalApi, store: ClusterStore) -> None:
    before = store.revision
    body = await api.create(CONFIG_MAPS, a_config_map(), dry_run=True)
    assert body["metadata"]["uid"]
    assert store.revision == before
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAPS, "config", namespace="default")


async def test_a_finalizer_delays_the_end(api: LocalApi) -> None:
    body = a_config_map()
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(CONFIG_MAPS, body)
    await api.delete(CONFIG_MAPS, "config", namespace="default")
    body = await api.get(CONFIG_MAPS, "config", namespace="default")
    assert body["metadata"]["deletionTimestamp"]
    body["metadata"]["finalizers"] = []
    await api.update(CONFIG_MAPS, body)
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAPS, "config", namespace="default")


async def test_a_dying_object_takes_no_new_finalizer(api: LocalApi) -> None:
    body = a_config_map()
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(CONFIG_MAPS, body)
    await api.delete(CONFIG_MAPS, "config", namespace="default")
    body = await api.get(CONFIG_MAPS, "config", namespace="default")
    body["metadata"]["finalizers"].append("example.com/more")
    with pytest.raises(Invalid, match="no new finalizers can be added"):
        await api.update(CONFIG_MAPS, body)


async def test_a_delete_may_insist_on_a_resource_version(api: LocalApi) -> None:
    await api.create(CONFIG_MAPS, a_config_map())
    with pytest.raises(Conflict):
        await api.delete(CONFIG_MAPS, "config", namespace="default", resource_version="1")


async def test_owner_references_stay(api: LocalApi) -> None:
    body = a_config_map()
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": True}
    body["metadata"]["ownerReferences"] = [owner]
    assert (await api.create(CONFIG_MAPS, body))["metadata"]["ownerReferences"] == [owner]


async def test_a_collection_is_deleted_by_selector(api: LocalApi) -> None:
    for node in ("node-a", "node-b"):
        await api.create(RESOURCE_SLICES, a_slice([], node=node))
    await api.delete_collection(RESOURCE_SLICES, field_selector="spec.nodeName=node-a")
    left = (await api.list(RESOURCE_SLICES))["items"]
    assert [body["spec"]["nodeName"] for body in left] == ["node-b"]


async def test_a_pod_without_node_is_deleted_at_once(api: LocalApi) -> None:
    await api.create(PODS, a_pod())
    await api.delete(PODS, "pod", namespace="default")
    with pytest.raises(NotFound):
        await api.get(PODS, "pod", namespace="default")


async def test_a_pod_on_a_node_dies_when_its_kubelet_says_so(api: LocalApi) -> None:
    await a_bound_pod(api, a_pod(terminationGracePeriodSeconds=7))
    await api.delete(PODS, "pod", namespace="default")
    meta = (await api.get(PODS, "pod", namespace="default"))["metadata"]
    assert meta["deletionGracePeriodSeconds"] == 7
    await api.delete(PODS, "pod", namespace="default", grace_period_s=0)
    with pytest.raises(NotFound):
        await api.get(PODS, "pod", namespace="default")


async def test_a_second_delete_does_not_prolong_the_grace(api: LocalApi) -> None:
    await a_bound_pod(api, a_pod())
    await api.delete(PODS, "pod", namespace="default", grace_period_s=5)
    before = await api.get(PODS, "pod", namespace="default")
    await api.delete(PODS, "pod", namespace="default", grace_period_s=60)
    assert await api.get(PODS, "pod", namespace="default") == before


async def test_a_finished_pod_needs_no_grace(api: LocalApi) -> None:
    await a_bound_pod(api, a_pod())
    done = {"status": {"phase": "Succeeded"}}
    await api.patch(PODS, "pod", done, namespace="default", subresource="status")
    await api.delete(PODS, "pod", namespace="default")
    with pytest.raises(NotFound):
        await api.get(PODS, "pod", namespace="default")


async def test_binding_sets_the_node_and_says_so(api: LocalApi) -> None:
    pod = await a_bound_pod(api, a_pod(), "node-x")
    assert pod["spec"]["nodeName"] == "node-x"
    [condition] = pod["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")


async def test_a_pod_is_bound_only_once(api: LocalApi) -> None:
    await a_bound_pod(api, a_pod())
    target = {"target": {"kind": "Node", "name": "node-b"}}
    with pytest.raises(Conflict, match='already assigned to node "node-a"'):
        await api.create(PODS, target, namespace="default", name="pod", subresource="binding")


async def test_nothing_is_created_in_a_terminating_namespace(api: LocalApi) -> None:
    await api.create(NAMESPACES, {"metadata": {"name": "old"}})
    await api.delete(NAMESPACES, "old")
    assert (await api.get(NAMESPACES, "old"))["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden, match="because it is being terminated"):
        await api.create(CONFIG_MAPS, a_config_map(namespace="old"))


async def test_a_namespace_goes_when_it_is_finalized(api: LocalApi) -> None:
    await api.create(NAMESPACES, {"metadata": {"name": "old"}})
    await api.delete(NAMESPACES, "old")
    body = await api.get(NAMESPACES, "old")
    body["spec"]["finalizers"] = []
    await api.update(NAMESPACES, body, subresource="finalize")
    with pytest.raises(NotFound):
        await api.get(NAMESPACES, "old")


async def test_the_default_namespace_stays(api: LocalApi) -> None:
    with pytest.raises(Forbidden, match="may not be deleted"):
        await api.delete(NAMESPACES, "default")


async def test_stored_objects_are_out_of_the_caller_s_reach(api: LocalApi) -> None:
    body = a_config_map(a="1")
    created = await api.create(CONFIG_MAPS, body)
    body["data"]["a"] = created["data"]["a"] = "spoilt"
    assert (await api.get(CONFIG_MAPS, "config", namespace="default"))["data"] == {"a": "1"}
