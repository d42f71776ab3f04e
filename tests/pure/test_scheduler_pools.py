"""Slices to pools: generations, completeness, order, placement, usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.scheduler.pools import DeviceId, Pool, gather_pools
from nvdra_sim.cluster.scheduler.usage import usage_of
from nvdra_testing.dra_objects import a_claim, a_device, a_node, a_slice, allocated, some_gpus

if TYPE_CHECKING:
    from nvdra_kube.api import Body

NODE = a_node()


def names(pool: Pool, node: Body = NODE) -> list[str]:
    return [device.id.device for device in pool.devices_on(node)]


def only_pool(*slices: Body) -> Pool:
    (pool,) = gather_pools(slices)
    return pool


def test_only_the_highest_generation_counts() -> None:
    old = a_slice(some_gpus(8), name="old", generation=1)
    new = a_slice(some_gpus(2), name="new", generation=2)
    assert names(only_pool(new, old)) == ["gpu-0", "gpu-1"]


def test_devices_come_in_order_of_slice_name_then_list() -> None:
    second = a_slice([a_device("b"), a_device("a")], name="s-2", of=2)
    first = a_slice([a_device("z")], name="s-1", of=2)
    assert names(only_pool(second, first)) == ["z", "b", "a"]


def test_pools_come_in_order_of_driver_then_name() -> None:
    slices = [
        a_slice([], name="1", driver="z.example.com", pool="a"),
        a_slice([], name="2", driver="a.example.com", pool="y"),
        a_slice([], name="3", driver="a.example.com", pool="x"),
    ]
    found = [(pool.driver, pool.name) for pool in gather_pools(slices)]
    assert found == [("a.example.com", "x"), ("a.example.com", "y"), ("z.example.com", "a")]


def test_a_pool_with_binding_conditions_comes_last() -> None:
    slow = a_slice([a_device("x", bindingConditions=["ready"])], name="1", pool="a")
    fast = a_slice([a_device("y")], name="2", pool="b")
    assert [pool.name for pool in gather_pools([slow, fast])] == ["b", "a"]


def test_an_incomplete_pool_gives_no_devices_and_says_how_many_slices_are_missing() -> None:
    pool = only_pool(a_slice(some_gpus(2), of=3))
    assert names(pool) == []
    assert pool.defect == "incomplete: 1 of 3 slices are published"


def test_a_device_name_that_appears_twice_makes_the_pool_invalid() -> None:
    pool = only_pool(
        a_slice([a_device("gpu-0")], name="a", of=2), a_slice([a_device("gpu-0")], name="b", of=2)
    )
    assert names(pool) == []
    assert "gpu-0 appears more than once" in pool.defect


def test_a_device_consuming_an_unknown_counter_makes_the_pool_invalid() -> None:
    device = a_device(
        "mig", consumesCounters=[{"counterSet": "gpu-0", "counters": {"slices": {"value": "1"}}}]
    )
    counters = {"name": "gpu-0", "counters": {"memory": {"value": "80Gi"}}}
    pool = only_pool(
        a_slice([device], name="a", of=2), a_slice([], name="b", of=2, sharedCounters=[counters])
    )
    assert "counter gpu-0/slices" in pool.defect


def test_counter_sets_are_gathered_over_the_whole_pool() -> None:
    counters = {"name": "gpu-0", "counters": {"memory": {"value": "80Gi"}}}
    pool = only_pool(
        a_slice([], name="b", of=2, sharedCounters=[counters]), a_slice([], name="a", of=2)
    )
    assert pool.counter_sets == {"gpu-0": {"memory": 80 * 2**30}}


def test_a_slice_belongs_to_its_node_only() -> None:
    pool = only_pool(a_slice(some_gpus(1), node="node-b"))
    assert not pool.is_on(NODE)
    assert names(pool, a_node("node-b")) == ["gpu-0"]


def test_a_slice_for_all_nodes_is_on_each() -> None:
    pool = only_pool(a_slice(some_gpus(1), allNodes=True))
    assert names(pool) == names(pool, a_node("node-z")) == ["gpu-0"]


def test_a_node_selector_places_a_slice_by_label() -> None:
    need = {"key": "rack", "operator": "In", "values": ["r1"]}
    selector = {"nodeSelectorTerms": [{"matchExpressions": [need]}]}
    pool = only_pool(a_slice(some_gpus(1), nodeSelector=selector))
    assert names(pool, a_node(labels={"rack": "r1"})) == ["gpu-0"]
    assert names(pool, a_node(labels={"rack": "r2"})) == []


def test_devices_may_choose_their_nodes_one_by_one() -> None:
    devices = [a_device("here", nodeName="node-a"), a_device("there", nodeName="node-b")]
    pool = only_pool(a_slice(devices, perDeviceNodeSelection=True))
    assert names(pool) == ["here"]


def test_an_attribute_without_domain_belongs_to_the_driver() -> None:
    (device,) = only_pool(a_slice([a_device("g", attributes={"uuid": "U"})])).devices
    assert device.attribute("gpu.nvidia.com/uuid") == {"string": "U"}
    assert device.attribute("gpu.example.com/uuid") is None


def test_usage_leaves_out_admin_access() -> None:
    results = [
        {"request": "a", "driver": "d", "pool": "p", "device": "one"},
        {"request": "b", "driver": "d", "pool": "p", "device": "two", "adminAccess": True},
    ]
    usage = usage_of([allocated(a_claim("c"), {"devices": {"results": results}}), a_claim("free")])
    assert usage.holders == {DeviceId("d", "p", "one"): ("default/c",)}
