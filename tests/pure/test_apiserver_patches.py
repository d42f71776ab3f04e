"""The four kinds of patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_kube.errors import ApiError, BadRequest, Conflict, Invalid, NotFound
from nvdra_kube.resources import PODS, RESOURCE_CLAIMS, RESOURCE_SLICES
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.cluster.apiserver.catalog import Catalog
from nvdra_sim.cluster.apiserver.patching.json_patch import json_patch
from nvdra_sim.cluster.apiserver.patching.merge_keys import strategic_keys
from nvdra_sim.cluster.apiserver.patching.patches import merge
from nvdra_sim.cluster.apiserver.patching.strategic_patch import strategic_merge
from nvdra_testing.dra_objects import a_claim, a_device, a_pod, a_slice
from nvdra_testing.server_objects import CONFIG_MAPS, a_config_map

if TYPE_CHECKING:
    from nvdra_kube.api import Body

STRATEGIC = strategic_keys(Catalog().at("", "v1", "pods"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from("abc"), json_values)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_follow_their_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


@given(documents, documents)
def test_a_merge_patch_twice_is_a_merge_patch_once(target: Body, patch: Body) -> None:
    once = merge(target, patch)
    assert merge(once, patch) == once


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/b", "value": 1}], {"a": [1, 2], "b": 1}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ([{"op": "add", "path": "/a/0", "value": 0}], {"a": [0, 1, 2]}),
        ([{"op": "remove", "path": "/a/1"}], {"a": [1]}),
        ([{"op": "replace", "path": "/a", "value": 7}], {"a": 7}),
        ([{"op": "copy", "from": "/a", "path": "/x~1y"}], {"a": [1, 2], "x/y": [1, 2]}),
        ([{"op": "move", "from": "/a/0", "path": "/a/1"}], {"a": [2, 1]}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
        ([{"op": "replace", "path": "", "value": {}}], {}),
    ],
)
def test_json_patches_follow_their_rfc(operations: Any, result: Any) -> None:
    assert json_patch({"a": [1, 2]}, operations) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a/0", "value": 9},
        {"op": "remove", "path": "/nothing"},
        {"op": "replace", "path": "/nothing", "value": 1},
        {"op": "add", "path": "/a/9", "value": 1},
        {"op": "add", "path": "/no/where", "value": 1},
        {"op": "remove", "path": ""},
    ],
)
def test_json_patches_that_do_not_fit_are_refused(operation: Body) -> None:
    with pytest.raises(Invalid, match="does not fit the object") as caught:
        json_patch({"a": [1, 2]}, [operation])
    assert caught.value.status == 422


@pytest.mark.parametrize(
    "patch",
    [{}, [{"op": "add"}], ["x"], [{"op": "fly", "path": "/a"}], [{"op": "test", "path": "a"}]],
)
def test_malformed_json_patches_are_bad_requests(patch: Any) -> None:
    with pytest.raises(BadRequest):
        json_patch({}, patch)


def test_strategic_merge_goes_by_name() -> None:
    pod = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}
    patch = {"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}}
    merged = strategic_merge(pod, patch, STRATEGIC)
    found = {each["name"]: each["image"] for each in merged["spec"]["containers"]}
    assert found == {"a": "1", "b": "2", "c": "1"}


def test_strategic_merge_replaces_other_lists() -> None:
    pod = {"spec": {"containers": [{"name": "a", "args": ["x", "y"]}]}}
    patch = {"spec": {"containers": [{"name": "a", "args": ["z"]}]}}
    assert strategic_merge(pod, patch, STRATEGIC)["spec"]["containers"][0]["args"] == ["z"]


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"env": [{"name": "A", "$patch": "delete"}]}, [{"name": "B", "value": "2"}]),
        ({"env": [{"$patch": "replace"}, {"name": "C"}]}, [{"name": "C"}]),
        (
            {"$setElementOrder/env": [{"name": "B"}, {"name": "A"}]},
            [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}],
        ),
        ({"$retainKeys": ["x"], "x": 1}, None),
    ],
)
def test_strategic_directives(patch: Body, result: Any) -> None:
    container = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    assert strategic_merge(container, patch, STRATEGIC).get("env") == result


def test_strategic_sets_lose_what_they_are_told() -> None:
    meta = {"finalizers": ["a", "b"]}
    patch = {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b"]}
    assert strategic_merge(meta, patch, STRATEGIC) == {"finalizers": ["b", "c"]}


def test_strategic_items_need_their_key() -> None:
    with pytest.raises(BadRequest, match="does not contain declared merge key: name"):
        strategic_merge({"env": []}, {"env": [{"value": "1"}]}, STRATEGIC)


@pytest.fixture
def api() -> LocalApi:
    return LocalApi(ClusterStore())


async def test_a_patch_may_insist_on_a_resource_version(api: LocalApi) -> None:
    await api.create(CONFIG_MAPS, a_config_map())
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"a": "b"}}
    with pytest.raises(Conflict):
        await api.patch(CONFIG_MAPS, "config", stale, namespace="default")


async def test_a_patch_cannot_rename(api: LocalApi) -> None:
    await api.create(CONFIG_MAPS, a_config_map())
    with pytest.raises(BadRequest, match="does not match the name on the URL"):
        await api.patch(CONFIG_MAPS, "config", {"metadata": {"name": "x"}}, namespace="default")


async def test_a_patch_of_nothing_changes_nothing(api: LocalApi) -> None:
    body = await api.create(CONFIG_MAPS, a_config_map())
    assert await api.patch(CONFIG_MAPS, "config", {}, namespace="default") == body


async def test_a_patch_needs_its_object(api: LocalApi) -> None:
    with pytest.raises(NotFound):
        await api.patch(CONFIG_MAPS, "config", {}, namespace="default")


async def test_patches_are_validated(api: LocalApi) -> None:
    await api.create(RESOURCE_SLICES, a_slice([a_device("d")], name="s"))
    with pytest.raises(Invalid, match="field is immutable"):
        await api.patch(RESOURCE_SLICES, "s", {"spec": {"driver": "x"}})


async def apply(api: LocalApi, manager: str, force: bool = False, **data: str) -> Body:
    return await api.patch(
        CONFIG_MAPS,
        "config",
        a_config_map(**data),
        namespace="default",
        patch_type="application/apply-patch+yaml",
        field_manager=manager,
        force=force,
    )


async def test_apply_creates(api: LocalApi) -> None:
    body = await apply(api, "one", a="1")
    assert body["data"] == {"a": "1"}
    [entry] = body["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("one", "Apply")
    assert entry["fieldsV1"] == {"f:data": {"f:a": {}}}


async def test_apply_needs_a_manager(api: LocalApi) -> None:
    with pytest.raises(Invalid, match="is required for apply patch"):
        await apply(api, "")


async def test_applying_the_same_again_changes_nothing(api: LocalApi) -> None:
    body = await apply(api, "one", a="1")
    assert await apply(api, "one", a="1") == body


async def test_what_is_no_longer_applied_goes(api: LocalApi) -> None:
    await apply(api, "one", a="1", b="2")
    assert (await apply(api, "one", a="1"))["data"] == {"a": "1"}


async def test_what_others_wrote_stays(api: LocalApi) -> None:
    await apply(api, "one", a="1")
    await api.patch(CONFIG_MAPS, "config", {"data": {"x": "9"}}, namespace="default")
    await apply(api, "two", b="2")
    assert (await apply(api, "one", c="3"))["data"] == {"x": "9", "b": "2", "c": "3"}


async def test_a_field_of_another_applier_is_a_conflict(api: LocalApi) -> None:
    await apply(api, "one", a="1")
    with pytest.raises(Conflict, match=r'conflicts with "one": data\.a'):
        await apply(api, "two", a="2")


async def test_agreeing_on_a_value_shares_it(api: LocalApi) -> None:
    await apply(api, "one", a="1")
    await apply(api, "two", a="1")
    assert (await apply(api, "one", b="2"))["data"] == {"a": "1", "b": "2"}


async def test_force_takes_a_field_over(api: LocalApi) -> None:
    await apply(api, "one", a="1")
    body = await apply(api, "two", force=True, a="2")
    assert body["data"] == {"a": "2"}
    assert [entry["manager"] for entry in body["metadata"]["managedFields"]] == ["two"]


async def test_apply_merges_device_status_by_its_key(api: LocalApi) -> None:
    await api.create(RESOURCE_CLAIMS, a_claim())
    devices = [{"driver": "a.b", "pool": "p", "device": device} for device in ("gpu-0", "gpu-1")]
    results = [{**device, "request": "gpu"} for device in devices]
    status: Body = {"allocation": {"devices": {"results": results}}}
    await api.patch(
        RESOURCE_CLAIMS, "claim", {"status": status}, namespace="default", subresource="status"
    )
    for number, device in enumerate(devices):
        intent = {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "status": {"devices": [{**device, "data": {"n": number}}]},
        }
        body = await api.patch(
            RESOURCE_CLAIMS,
            "claim",
            intent,
            namespace="default",
            subresource="status",
            patch_type="application/apply-patch+yaml",
            field_manager=f"m{number}",
        )
    assert [device["data"] for device in body["status"]["devices"]] == [{"n": 0}, {"n": 1}]


async def test_apply_keeps_the_containers_of_others(api: LocalApi) -> None:
    await api.create(PODS, a_pod())
    intent = {"spec": {"containers": [{"name": "ctr", "image": "ubuntu:24.04"}]}}
    body = await api.patch(
        PODS,
        "pod",
        {"apiVersion": "v1", "kind": "Pod", **intent},
        namespace="default",
        patch_type="application/apply-patch+yaml",
        field_manager="m",
    )
    [container] = body["spec"]["containers"]
    assert (container["image"], container["command"]) == ("ubuntu:24.04", ["true"])


async def test_an_unknown_kind_of_patch_is_refused(api: LocalApi) -> None:
    await api.create(CONFIG_MAPS, a_config_map())
    with pytest.raises(ApiError) as caught:
        await api.patch(
            CONFIG_MAPS,
            "config",
            {},
            namespace="default",
            patch_type="text/plain",  # type: ignore[arg-type]
        )
    assert caught.value.status == 415
