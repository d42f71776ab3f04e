"""What the embedded API server refuses about ResourceSlices, by version, as the real one does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nvdra_kube.errors import Invalid
from nvdra_kube.resources import DEVICE_CLASSES, RESOURCE_CLAIMS, RESOURCE_SLICES
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_testing.dra_objects import (
    a_claim,
    a_class,
    a_device,
    a_request,
    a_slice,
    first_available,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body, Resource

TAINT = {"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoSchedule"}


def counters(*names: str) -> Body:
    return {name: {"value": "1"} for name in names}


def a_set(name: str = "gpu-0", *names: str) -> Body:
    return {"name": name, "counters": counters(*(names or ("memory",)))}


def consuming(name: str = "mig-0", counter_set: str = "gpu-0", *names: str) -> Body:
    used = {"counterSet": counter_set, "counters": counters(*(names or ("memory",)))}
    return a_device(name, consumesCounters=[used])


def plain(count: int, **extra: Any) -> list[Body]:
    return [{"name": f"gpu-{number}", **extra} for number in range(count)]


async def published(
    body: Body, *, version: str = "v1.36.3", gates: Mapping[str, bool] | None = None
) -> Body:
    api = LocalApi(ClusterStore(version=version, gates=gates))
    return await api.create(RESOURCE_SLICES, body)


async def causes(
    body: Body, *, version: str = "v1.36.3", gates: Mapping[str, bool] | None = None
) -> list[str]:
    with pytest.raises(Invalid) as caught:
        await published(body, version=version, gates=gates)
    return [cause["field"] for cause in caught.value.details["causes"]]


async def test_a_good_slice_is_taken_and_quantities_are_canonical() -> None:
    body = await published(a_slice([a_device("gpu-0", memory="81920Mi", taints=[TAINT])]))
    [device] = body["spec"]["devices"]
    assert device["capacity"]["memory"]["value"] == "80Gi"
    assert device["taints"][0]["timeAdded"].endswith("Z")


async def test_the_time_of_a_taint_is_kept() -> None:
    taint = {**TAINT, "timeAdded": "2026-01-01T00:00:00Z"}
    body = await published(a_slice([a_device("gpu-0", taints=[taint])]))
    assert body["spec"]["devices"][0]["taints"] == [taint]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"driver": ""}, "spec.driver"),
        ({"driver": f"{'a' * 60}.com"}, "spec.driver"),
        ({"pool": {"name": "", "resourceSliceCount": 1}}, "spec.pool.name"),
        ({"pool": {"name": "a//b", "resourceSliceCount": 1}}, "spec.pool.name"),
        ({"pool": {"name": "a" * 254, "resourceSliceCount": 1}}, "spec.pool.name"),
        ({"pool": {"name": "a", "resourceSliceCount": 0}}, "spec.pool.resourceSliceCount"),
        (
            {"pool": {"name": "a", "generation": -1, "resourceSliceCount": 1}},
            "spec.pool.generation",
        ),
        ({"allNodes": True}, "spec"),
        ({"nodeName": ""}, "spec.nodeName"),
    ],
)
async def test_slices_have_rules(change: Body, field: str) -> None:
    body = a_slice([])
    body["spec"] |= change
    assert field in await causes(body)


async def test_a_place_is_needed() -> None:
    body = a_slice([])
    del body["spec"]["nodeName"]
    assert await causes(body) == ["spec"]


async def test_false_is_no_place() -> None:
    assert await causes(a_slice([], allNodes=False)) == ["spec.allNodes"]


async def test_a_node_selector_has_one_term() -> None:
    field = "spec.nodeSelector.nodeSelectorTerms"
    assert await causes(a_slice([], nodeSelector={"nodeSelectorTerms": [{}, {}]})) == [field]


@pytest.mark.parametrize(
    ("device", "field"),
    [
        ({"name": "GPU"}, "name"),
        ({}, "name"),
        (a_device("d", attributes={"not-c": 1}), "attributes"),
        (a_device("d", attributes={"x" * 33: 1}), "attributes"),
        (a_device("d", attributes={"n": {"int": 1, "bool": True}}), "attributes[n]"),
        (a_device("d", attributes={"n": {}}), "attributes[n]"),
        (a_device("d", attributes={"n": "x" * 65}), "attributes[n].string"),
        (a_device("d", attributes={"n": {"version": "570.05"}}), "attributes[n].version"),
        (a_device("d", memory="much"), "capacity[memory].value"),
        (a_device("d", taints=[TAINT] * 17), "taints"),
        (a_device("d", taints=[{**TAINT, "effect": ""}]), "taints[0].effect"),
        (a_device("d", taints=[{**TAINT, "effect": "Never"}]), "taints[0].effect"),
        (a_device("d", taints=[{**TAINT, "key": "a b"}]), "taints[0].key"),
        (a_device("d", bindingConditions=["a"]), "bindingFailureConditions"),
        (
            a_device("d", bindingConditions=["a"], bindingFailureConditions=["a"]),
            "bindingFailureConditions",
        ),
        (
            a_device("d", bindingConditions=list("abcde"), bindingFailureConditions=["x"]),
            "bindingConditions",
        ),
        (a_device("d", nodeName="n"), "nodeName"),
        (
            a_device("d", memory={"value": "1", "requestPolicy": {"default": "1"}}),
            "capacity[memory].requestPolicy",
        ),
    ],
)
async def test_devices_have_rules(device: Body, field: str) -> None:
    assert f"spec.devices[0].{field}" in await causes(a_slice([device]))


async def test_32_attributes_and_capacities_are_the_limit() -> None:
    attributes = {f"a{number}": 1 for number in range(30)}
    await published(a_slice([a_device("d", attributes=attributes)]))
    more = a_device("d", attributes={**attributes, "b": 1})
    assert await causes(a_slice([more])) == ["spec.devices[0]"]


async def test_devices_are_named_once() -> None:
    assert await causes(a_slice([{"name": "a"}, {"name": "a"}])) == ["spec.devices[1]"]


async def test_128_plain_devices_fit() -> None:
    await published(a_slice(plain(128)))
    assert await causes(a_slice(plain(129))) == ["spec.devices"]


async def test_one_taint_halves_the_room() -> None:
    await published(a_slice(plain(64, taints=[TAINT])))
    assert await causes(a_slice([*plain(64), {"name": "x", "taints": [TAINT]}])) == ["spec.devices"]


async def test_a_taint_added_later_is_refused_where_it_makes_the_slice_too_full() -> None:
    api = LocalApi(ClusterStore())
    body = await api.create(RESOURCE_SLICES, a_slice(plain(65)))
    body["spec"]["devices"][0]["taints"] = [TAINT]
    with pytest.raises(Invalid, match="must have at most 64 items"):
        await api.update(RESOURCE_SLICES, body)


async def test_old_servers_do_not_count_that_way() -> None:
    body = a_slice(plain(128, taints=[TAINT]))
    await published(body, version="v1.34.0", gates={"DRADeviceTaints": True})


async def test_old_servers_take_four_taints() -> None:
    await published(
        a_slice([a_device("d", taints=[TAINT] * 4)]),
        version="v1.34.0",
        gates={"DRADeviceTaints": True},
    )
    body = a_slice([a_device("d", taints=[TAINT] * 5)])
    assert await causes(body, version="v1.34.0", gates={"DRADeviceTaints": True}) == [
        "spec.devices[0].taints"
    ]


async def test_new_servers_want_counters_and_devices_apart() -> None:
    await published(a_slice([], sharedCounters=[a_set()]))
    await published(a_slice([consuming()]))
    assert await causes(a_slice([consuming()], sharedCounters=[a_set()])) == ["spec"]


async def test_old_servers_want_them_together() -> None:
    await published(
        a_slice([consuming()], sharedCounters=[a_set()]),
        version="v1.34.0",
        gates={"DRAPartitionableDevices": True},
    )
    fields = await causes(
        a_slice([consuming()]), version="v1.34.0", gates={"DRAPartitionableDevices": True}
    )
    assert "spec.devices[0].consumesCounters[0].counterSet" in fields


async def test_old_servers_know_the_counters_of_a_set() -> None:
    body = a_slice([consuming("m", "gpu-0", "other")], sharedCounters=[a_set()])
    assert await causes(body, version="v1.34.0", gates={"DRAPartitionableDevices": True}) == [
        "spec.devices[0].consumesCounters[0].counters"
    ]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"sharedCounters": [a_set(f"g{n}") for n in range(9)]}, "spec.sharedCounters"),
        ({"sharedCounters": [a_set(), a_set()]}, "spec.sharedCounters[1]"),
        ({"sharedCounters": [a_set("GPU")]}, "spec.sharedCounters[0].name"),
        ({"sharedCounters": [{"name": "a"}]}, "spec.sharedCounters[0].counters"),
        (
            {"sharedCounters": [a_set("a", *(f"c{n}" for n in range(33)))]},
            "spec.sharedCounters[0].counters",
        ),
    ],
)
async def test_counter_sets_have_rules(spec: Body, field: str) -> None:
    assert field in await causes(a_slice([], **spec))


async def test_a_device_consumes_of_two_sets_at_most() -> None:
    used = [{"counterSet": f"g{n}", "counters": counters("a")} for n in range(3)]
    body = a_slice([a_device("d", consumesCounters=used)])
    assert await causes(body) == ["spec.devices[0].consumesCounters"]


async def test_devices_may_have_their_own_nodes() -> None:
    await published(a_slice([a_device("d", nodeName="n")], perDeviceNodeSelection=True))
    body = a_slice([a_device("d")], perDeviceNodeSelection=True)
    assert await causes(body) == ["spec.devices[0]"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (("driver",), "spec.driver"),
        (("pool", "name"), "spec.pool.name"),
        (("nodeName",), "spec.nodeName"),
    ],
)
async def test_identity_is_immutable(path: tuple[str, ...], field: str) -> None:
    api = LocalApi(ClusterStore())
    body = await api.create(RESOURCE_SLICES, a_slice([]))
    owner = body["spec"] if len(path) == 1 else body["spec"][path[0]]
    owner[path[-1]] = "other"
    with pytest.raises(Invalid, match=rf"{field}: .*field is immutable"):
        await api.update(RESOURCE_SLICES, body)


async def test_an_empty_pool_is_fine() -> None:
    assert (await published(a_slice([])))["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("gate", "device", "field"),
    [
        ("DRADeviceTaints", {"taints": [TAINT]}, "taints"),
        (
            "DRAPartitionableDevices",
            {"consumesCounters": [{"counterSet": "a"}]},
            "consumesCounters",
        ),
        ("DRAConsumableCapacity", {"allowMultipleAllocations": True}, "allowMultipleAllocations"),
        ("DRADeviceBindingConditions", {"bindsToNode": True}, "bindsToNode"),
    ],
)
async def test_fields_of_switched_off_features_vanish(gate: str, device: Body, field: str) -> None:
    body = await published(a_slice([a_device("d", **device)]), gates={gate: False})
    assert field not in body["spec"]["devices"][0]


async def test_partitions_vanish_by_default_before_1_36() -> None:
    body = await published(a_slice([consuming()], sharedCounters=[a_set()]), version="v1.35.1")
    assert "sharedCounters" not in body["spec"]
    assert "consumesCounters" not in body["spec"]["devices"][0]


async def test_a_slice_without_any_place_left_is_refused() -> None:
    body = a_slice([a_device("d", nodeName="n")], perDeviceNodeSelection=True)
    assert await causes(body, gates={"DRAPartitionableDevices": False}) == ["spec"]


async def test_list_attributes_vanish_and_leave_nothing() -> None:
    body = a_slice([a_device("d", attributes={"n": {"ints": [1, 2]}})])
    assert await causes(body) == ["spec.devices[0].attributes[n]"]
    await published(body, gates={"DRAListTypeAttributes": True})


async def test_fields_in_use_survive_the_switch() -> None:
    store = ClusterStore()
    body = await LocalApi(store).create(RESOURCE_SLICES, a_slice([a_device("d", taints=[TAINT])]))
    store.profile = ClusterStore(gates={"DRADeviceTaints": False}).profile
    body["metadata"]["labels"] = {"a": "b"}
    after = await LocalApi(store).update(RESOURCE_SLICES, body)
    assert after["spec"]["devices"][0]["taints"]


def test_unknown_gates_are_told() -> None:
    with pytest.raises(ValueError, match="unknown server feature gates DRANonsense"):
        ClusterStore(gates={"DRANonsense": True})


def test_the_version_must_be_one() -> None:
    with pytest.raises(ValueError, match="does not look like"):
        ClusterStore(version="newest")


async def test_gated_fields_of_claims_vanish() -> None:
    async def created(resource: Resource, body: Body, gates: Mapping[str, bool]) -> Body:
        return await LocalApi(ClusterStore(gates=gates)).create(resource, body)

    claim = a_claim("c", a_request(adminAccess=True))
    after = await created(RESOURCE_CLAIMS, claim, gates={"DRAAdminAccess": False})
    assert "adminAccess" not in after["spec"]["devices"]["requests"][0]["exactly"]
    named = a_class("c", extendedResourceName="nvidia.com/gpu")
    after = await created(DEVICE_CLASSES, named, gates={"DRAExtendedResource": False})
    assert after["spec"] == {}
    with pytest.raises(Invalid, match="exactly one of `exactly` or `firstAvailable`"):
        listed = a_claim("c", first_available("gpu", a_request("a")))
        await created(RESOURCE_CLAIMS, listed, gates={"DRAPrioritizedList": False})
