"""The allocator: what is granted, in which form, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nvdra_sim.cluster.scheduler.allocator import Placement, Unsatisfiable, allocate
from nvdra_sim.cluster.scheduler.pools import gather_pools
from nvdra_sim.cluster.scheduler.usage import usage_of
from nvdra_testing.dra_objects import (
    a_claim,
    a_class,
    a_device,
    a_mig,
    a_node,
    a_request,
    a_slice,
    allocated,
    first_available,
    nvidia_classes,
    opaque,
    some_gpus,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nvdra_kube.api import Body

MIG = "mig.nvidia.com"


def attempt(
    *claims: Body,
    slices: Sequence[Body],
    holding: Sequence[Body] = (),
    classes: Mapping[str, Body] | None = None,
    node: Body | None = None,
) -> Placement | Unsatisfiable:
    share_ids = iter(f"share-{index}" for index in range(100))
    return allocate(
        claims,
        node=node or a_node(),
        pools=gather_pools(slices),
        classes=nvidia_classes() if classes is None else classes,
        usage=usage_of(holding),
        new_share_id=lambda: next(share_ids),
    )


def grant(claim: Body, *others: Body, **cluster: Any) -> Body:
    """The allocation of the first claim."""
    outcome = attempt(claim, *others, **cluster)
    assert isinstance(outcome, Placement), outcome
    return outcome.allocations[f"default/{claim['metadata']['name']}"]


def devices_of(allocation: Body) -> list[tuple[str, str]]:
    return [(r["request"], r["device"]) for r in allocation["devices"]["results"]]


def refusal(*claims: Body, **cluster: Any) -> str:
    outcome = attempt(*claims, **cluster)
    assert isinstance(outcome, Unsatisfiable), outcome
    return " | ".join(outcome.reasons)


def held(device: str, *, by: str = "other", **extra: Any) -> Body:
    result = {"driver": "gpu.nvidia.com", "pool": "node-a", "device": device, **extra}
    return allocated(a_claim(by), {"devices": {"results": [{"request": "gpu", **result}]}})


GPUS = [a_slice(some_gpus(4))]


def test_the_first_device_fits_and_the_result_has_the_form_of_the_api() -> None:
    assert grant(a_claim(), slices=GPUS) == {
        "devices": {
            "results": [
                {
                    "request": "gpu",
                    "driver": "gpu.nvidia.com",
                    "pool": "node-a",
                    "device": "gpu-0",
                }
            ]
        },
        "nodeSelector": {
            "nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-a"]}]}
            ]
        },
    }


def test_devices_in_use_are_passed_over() -> None:
    allocation = grant(a_claim(), slices=GPUS, holding=[held("gpu-0"), held("gpu-1")])
    assert devices_of(allocation) == [("gpu", "gpu-2")]


def test_two_claims_of_a_pod_get_different_devices() -> None:
    outcome = attempt(a_claim("a"), a_claim("b"), slices=GPUS)
    assert isinstance(outcome, Placement)
    assert [devices_of(a) for a in outcome.allocations.values()] == [
        [("gpu", "gpu-0")],
        [("gpu", "gpu-1")],
    ]


def test_a_count_is_met_exactly() -> None:
    claim = a_claim("c", a_request(count=3))
    assert devices_of(grant(claim, slices=GPUS)) == [
        ("gpu", "gpu-0"),
        ("gpu", "gpu-1"),
        ("gpu", "gpu-2"),
    ]


def test_a_request_selector_narrows_the_class() -> None:
    claim = a_claim("c", a_request("gpu", "device.attributes['gpu.nvidia.com'].index > 1"))
    assert devices_of(grant(claim, slices=GPUS)) == [("gpu", "gpu-2")]


def test_all_takes_every_selected_device() -> None:
    claim = a_claim("c", a_request(allocationMode="All"))
    mixed = [a_slice([*some_gpus(2), a_mig("mig-0")])]
    assert devices_of(grant(claim, slices=mixed)) == [("gpu", "gpu-0"), ("gpu", "gpu-1")]


def test_all_fails_when_one_of_them_is_in_use() -> None:
    claim = a_claim("c", a_request(allocationMode="All"))
    reason = refusal(claim, slices=GPUS, holding=[held("gpu-2")])
    assert "3 of 4 selected ones are available" in reason
    assert "gpu-2: in use by claim default/other" in reason


def test_all_fails_when_nothing_is_selected() -> None:
    claim = a_claim("c", a_request(allocationMode="All", device_class=MIG))
    assert "0 of 0 selected ones" in refusal(claim, slices=GPUS)


def test_all_fails_while_any_pool_of_the_node_is_incomplete() -> None:
    claim = a_claim("c", a_request(allocationMode="All"))
    other = a_slice([], driver="nic.example.com", name="n", of=2)
    assert "nic.example.com/node-a is incomplete" in refusal(claim, slices=[*GPUS, other])


def test_an_incomplete_pool_elsewhere_is_no_obstacle() -> None:
    claim = a_claim("c", a_request(allocationMode="All"))
    elsewhere = a_slice([], node="node-b", of=2)
    assert len(devices_of(grant(claim, slices=[*GPUS, elsewhere]))) == 4


def test_the_first_available_alternative_wins() -> None:
    wish = first_available("gpu", a_request("big", count=8), a_request("small", count=2))
    assert devices_of(grant(a_claim("c", wish), slices=GPUS)) == [
        ("gpu/small", "gpu-0"),
        ("gpu/small", "gpu-1"),
    ]


def test_a_later_request_can_push_an_earlier_one_to_its_second_choice() -> None:
    wish = first_available("any", a_request("four", count=4), a_request("three", count=3))
    claim = a_claim("c", wish, a_request("one"))
    assert devices_of(grant(claim, slices=GPUS))[-1] == ("one", "gpu-3")


def test_match_attribute_backtracks_to_a_parent_that_has_all() -> None:
    migs = [
        a_mig("a-small", parent="A"),
        a_mig("b-small-0", parent="B"),
        a_mig("b-small-1", parent="B"),
    ]
    claim = a_claim(
        "c",
        a_request("x", device_class=MIG),
        a_request("y", device_class=MIG),
        constraints=[{"requests": [], "matchAttribute": "gpu.nvidia.com/parentUUID"}],
    )
    assert devices_of(grant(claim, slices=[a_slice(migs)])) == [
        ("x", "b-small-0"),
        ("y", "b-small-1"),
    ]


def test_match_attribute_covers_only_the_requests_it_names() -> None:
    migs = [a_mig("a", parent="A"), a_mig("b", parent="B"), a_mig("c", parent="B")]
    claim = a_claim(
        "c",
        a_request("free", device_class=MIG),
        a_request("x", device_class=MIG, count=2),
        constraints=[{"requests": ["x"], "matchAttribute": "gpu.nvidia.com/parentUUID"}],
    )
    found = devices_of(grant(claim, slices=[a_slice(migs)]))
    assert found == [("free", "a"), ("x", "b"), ("x", "c")]


def test_a_constraint_on_a_request_covers_its_alternatives() -> None:
    migs = [a_mig("a", parent="A"), a_mig("b", parent="B"), a_mig("c", parent="B")]
    claim = a_claim(
        "c",
        first_available("x", a_request("pair", device_class=MIG, count=2)),
        constraints=[{"requests": ["x"], "matchAttribute": "gpu.nvidia.com/parentUUID"}],
    )
    assert devices_of(grant(claim, slices=[a_slice(migs)])) == [("x/pair", "b"), ("x/pair", "c")]


def test_a_device_without_the_attribute_never_meets_a_constraint() -> None:
    claim = a_claim(
        "c", a_request(), constraints=[{"matchAttribute": "resource.kubernetes.io/pcieRoot"}]
    )
    reason = refusal(claim, slices=GPUS)
    assert "matchAttribute resource.kubernetes.io/pcieRoot over all requests" in reason


def test_distinct_attribute_spreads_over_parents() -> None:
    migs = [a_mig("a-0", parent="A"), a_mig("a-1", parent="A"), a_mig("b", parent="B")]
    claim = a_claim(
        "c",
        a_request("x", device_class=MIG, count=2),
        constraints=[{"distinctAttribute": "gpu.nvidia.com/parentUUID"}],
    )
    assert devices_of(grant(claim, slices=[a_slice(migs)])) == [("x", "a-0"), ("x", "b")]


def test_admin_access_takes_devices_in_use_and_marks_the_result() -> None:
    claim = a_claim("c", a_request(allocationMode="All", adminAccess=True))
    allocation = grant(claim, slices=GPUS, holding=[held("gpu-0")])
    assert len(devices_of(allocation)) == 4
    assert all(result["adminAccess"] for result in allocation["devices"]["results"])


def test_admin_access_takes_nothing_from_others() -> None:
    watching = held("gpu-0", adminAccess=True)
    assert devices_of(grant(a_claim(), slices=GPUS, holding=[watching])) == [("gpu", "gpu-0")]


def test_an_admin_request_for_two_gets_two_different_devices() -> None:
    claim = a_claim("c", a_request(count=2, adminAccess=True))
    assert devices_of(grant(claim, slices=GPUS)) == [("gpu", "gpu-0"), ("gpu", "gpu-1")]


@pytest.mark.parametrize("effect", ["NoSchedule", "NoExecute"])
def test_a_tainted_device_is_not_allocated(effect: str) -> None:
    sick = a_device("gpu-0", taints=[{"key": "xid", "value": "79", "effect": effect}])
    reason = refusal(a_claim(), slices=[a_slice([sick])])
    assert f"gpu-0: the taint xid=79:{effect} is not tolerated" in reason


@pytest.mark.parametrize("effect", ["None", "SomethingNew"])
def test_an_effect_that_is_none_or_unknown_keeps_nobody_off(effect: str) -> None:
    sick = a_device("gpu-0", taints=[{"key": "xid", "effect": effect}])
    assert devices_of(grant(a_claim(), slices=[a_slice([sick])])) == [("gpu", "gpu-0")]


def test_a_toleration_lets_a_tainted_device_through_and_is_copied_to_the_result() -> None:
    sick = a_device("gpu-0", taints=[{"key": "xid", "effect": "NoExecute"}])
    toleration = {"key": "xid", "operator": "Exists"}
    claim = a_claim("c", a_request(tolerations=[toleration]))
    (result,) = grant(claim, slices=[a_slice([sick])])["devices"]["results"]
    assert result["tolerations"] == [toleration]


def test_configs_of_the_class_come_before_those_of_the_claim() -> None:
    of_class = opaque(kind="FromTheClass")
    for_all, for_one = opaque(kind="All"), opaque(kind="One", requests=["y"])
    classes = {"gpu.nvidia.com": a_class(config=[of_class])}
    claim = a_claim("c", a_request("x"), a_request("y"), config=[for_all, for_one])
    assert grant(claim, slices=GPUS, classes=classes)["devices"]["config"] == [
        {"source": "FromClass", **of_class},
        {"source": "FromClaim", **for_all},
        {"source": "FromClaim", **for_one},
    ]


def test_a_claim_config_is_repeated_for_each_request_that_it_names() -> None:
    config = opaque(kind="K", requests=["x", "y"])
    claim = a_claim("c", a_request("x"), a_request("y"), config=[config])
    assert grant(claim, slices=GPUS)["devices"]["config"] == [{"source": "FromClaim", **config}] * 2


def test_a_config_for_an_alternative_that_was_not_chosen_is_left_out() -> None:
    wish = first_available("gpu", a_request("big", count=8), a_request("small"))
    config = [opaque(kind=k, requests=[f"gpu/{k}"]) for k in ("big", "small")]
    (entry,) = grant(a_claim("c", wish, config=config), slices=GPUS)["devices"]["config"]
    assert entry["requests"] == ["gpu/small"]


def test_a_device_of_all_nodes_does_not_bind_the_claim_to_a_node() -> None:
    allocation = grant(a_claim(), slices=[a_slice(some_gpus(1), allNodes=True)])
    assert "nodeSelector" not in allocation


def test_the_selector_of_a_slice_goes_into_the_allocation() -> None:
    need = {"key": "rack", "operator": "In", "values": ["r1"]}
    shared = a_slice(
        some_gpus(1), nodeSelector={"nodeSelectorTerms": [{"matchExpressions": [need]}]}
    )
    allocation = grant(a_claim(), slices=[shared], node=a_node(labels={"rack": "r1"}))
    assert allocation["nodeSelector"] == {"nodeSelectorTerms": [{"matchExpressions": [need]}]}


def counted(name: str, slices: int, **extra: Any) -> Body:
    counters = {"slices": {"value": str(slices)}}
    return a_mig(name, consumesCounters=[{"counterSet": "gpu-0", "counters": counters}], **extra)


def partitions(*devices: Body) -> list[Body]:
    total = {"name": "gpu-0", "counters": {"slices": {"value": "7"}}}
    return [
        a_slice(devices, name="a", of=2),
        a_slice([], name="b", of=2, sharedCounters=[total]),
    ]


def test_partitions_are_granted_while_their_counters_last() -> None:
    slices = partitions(counted("m4", 4), counted("m3", 3), counted("m1", 1))
    claim = a_claim("c", a_request(device_class=MIG, count=2))
    assert devices_of(grant(claim, slices=slices)) == [("gpu", "m4"), ("gpu", "m3")]
    assert "not all together" in refusal(
        a_claim("c", a_request(device_class=MIG, count=3)), slices=slices
    )


def test_counters_used_by_other_claims_are_gone() -> None:
    slices = partitions(counted("m4", 4), counted("m4b", 4), counted("m3", 3))
    claim = a_claim("c", a_request(device_class=MIG))
    assert devices_of(grant(claim, slices=slices, holding=[held("m4")])) == [("gpu", "m3")]
    reason = refusal(claim, slices=slices, holding=[held("m4"), held("m3")])
    assert "m4b: counter gpu-0/slices: 0 left, 4 needed" in reason


def shared_gpu(name: str = "gpu-0", **policy: Any) -> Body:
    memory = {"value": "80Gi", **({"requestPolicy": policy} if policy else {})}
    return a_device(name, memory=memory, allowMultipleAllocations=True)


def memory_request(amount: str, **extra: Any) -> Body:
    return a_request(capacity={"requests": {"gpu.nvidia.com/memory": amount}}, **extra)


def test_a_shared_device_is_granted_with_a_share_and_what_it_consumes() -> None:
    slices = [a_slice([shared_gpu(default="1Gi", validRange={"min": "1Gi", "step": "1Gi"})])]
    (result,) = grant(a_claim("c", memory_request("1500Mi")), slices=slices)["devices"]["results"]
    assert result["shareID"] == "share-0"
    assert result["consumedCapacity"] == {"memory": "2Gi"}


def test_shares_of_other_claims_reduce_what_is_left() -> None:
    slices = [a_slice([shared_gpu()])]
    other = held("gpu-0", shareID="s", consumedCapacity={"memory": "60Gi"})
    grant(a_claim("c", memory_request("20Gi")), slices=slices, holding=[other])
    reason = refusal(a_claim("c", memory_request("21Gi")), slices=slices, holding=[other])
    assert f"capacity memory: {20 * 2**30} left" in reason


def test_a_shared_device_without_policy_is_consumed_whole_by_default() -> None:
    slices = [a_slice([shared_gpu(), shared_gpu("gpu-1")])]
    claim = a_claim("c", a_request(count=2))
    assert devices_of(grant(claim, slices=slices)) == [("gpu", "gpu-0"), ("gpu", "gpu-1")]


def test_valid_values_round_a_share_up() -> None:
    policy: dict[str, Any] = {"default": "10Gi", "validValues": ["10Gi", "20Gi", "40Gi"]}
    slices = [a_slice([shared_gpu(**policy)])]
    (result,) = grant(a_claim("c", memory_request("11Gi")), slices=slices)["devices"]["results"]
    assert result["consumedCapacity"] == {"memory": "20Gi"}
    assert "less than was asked" in refusal(a_claim("c", memory_request("41Gi")), slices=slices)


def test_a_capacity_request_on_an_exclusive_device_is_a_minimum() -> None:
    slices = [a_slice([a_device("small", memory="40Gi"), a_device("large", memory="80Gi")])]
    claim = a_claim("c", memory_request("60Gi"))
    (result,) = grant(claim, slices=slices)["devices"]["results"]
    assert result["device"] == "large"
    assert "consumedCapacity" not in result
