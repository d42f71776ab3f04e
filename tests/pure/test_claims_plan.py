"""A claim becomes steps and devices, or an error that says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.claims.overlap import overlap
from nvdra_nodeagent.claims.plan import Holdings, PlanRules, gpus_of, make_plan
from nvdra_nodeagent.claims.record import Fence
from nvdra_nodeagent.errors import AgentError, Permanent, Retryable
from nvdra_nodeagent.inventory.model import Inventory
from nvdra_nodeagent.steps.cdi import CdiDevice, CdiStep
from nvdra_nodeagent.steps.time_slice import TimeSliceStep
from nvdra_testing.claims import (
    DRIVER,
    RULES,
    a_config_entry,
    a_gpu,
    a_mig,
    a_node_of,
    a_record,
    a_ref,
    a_result,
    an_allocated,
    cdi_id,
    gpu_uuid,
)
from nvdra_testing.configs import SHARING_ON, a_config, mps, time_slicing

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.allocation import AllocatedClaim
    from nvdra_nodeagent.claims.plan import Plan
    from nvdra_nodeagent.claims.record import Record

MIG_NODE = Inventory(
    (a_gpu(0, migs=(a_mig(0, start=0, size=4), a_mig(0, start=4, size=4, gi=8))), a_gpu(1))
)
MIG_NAMES = [name for name in MIG_NODE.devices if "mig" in name]
SHARING_RULES = PlanRules(driver=DRIVER, gates=SHARING_ON, cdi_id=cdi_id)


def planned(claim: AllocatedClaim, **kwargs: Any) -> Plan:
    arguments: dict[str, Any] = {
        "inventory": a_node_of(4),
        "holdings": Holdings(),
        "rules": RULES,
        **kwargs,
    }
    return make_plan(claim, **arguments)


def held(*results: Body | str, name: str = "holder", inventory: Inventory | None = None) -> Record:
    claim = an_allocated(*results, name=name)
    return a_record(claim, planned(claim, inventory=inventory or a_node_of(4)))


def refusal(claim: AllocatedClaim, **kwargs: Any) -> AgentError:
    with pytest.raises(AgentError) as caught:
        planned(claim, **kwargs)
    return caught.value


def test_devices_come_in_allocation_order() -> None:
    plan = planned(an_allocated("gpu-2", "gpu-0", "gpu-3"))
    assert [device.device for device in plan.devices] == ["gpu-2", "gpu-0", "gpu-3"]


def test_the_answer_to_the_kubelet_has_main_request_pool_and_cdi_id() -> None:
    claim = an_allocated(a_result("gpu-1", request="main/sub", shareID="s-1"))
    (device,) = (device.prepared() for device in planned(claim).devices)
    assert device.requests == ("main",)
    assert (device.pool, device.device, device.share_id) == ("node-a", "gpu-1", "s-1")
    assert device.cdi_ids == (f"k8s.gpu.nvidia.com/claim={claim.ref.uid}-gpu-1",)


def test_a_device_that_two_requests_hold_has_one_cdi_entry() -> None:
    claim = an_allocated("gpu-0", a_result("gpu-0", request="monitor", adminAccess=True))
    plan = planned(claim)
    assert plan.steps == (CdiStep(claim.ref.uid, (CdiDevice("gpu-0", gpu_uuid(0)),)),)
    assert [device.request for device in plan.devices] == ["gpu", "monitor"]


def test_a_device_that_is_not_here_names_what_is() -> None:
    error = refusal(an_allocated("gpu-9"), inventory=a_node_of(2))
    assert isinstance(error, Retryable)
    assert "gpu-9" in str(error)
    assert "present: gpu-0, gpu-1" in str(error)


def test_a_gpu_that_another_claim_holds_is_refused_and_the_holder_named() -> None:
    holder = held("gpu-1")
    error = refusal(an_allocated("gpu-1"), holdings=Holdings((holder,)))
    assert isinstance(error, Retryable)
    assert error.reason == "DeviceInUse"
    assert str(holder.claim) in str(error)


def test_a_mig_device_is_refused_while_its_whole_gpu_is_held() -> None:
    holder = held("gpu-0")  # before the GPU was cut
    error = refusal(an_allocated(MIG_NAMES[0]), holdings=Holdings((holder,)), inventory=MIG_NODE)
    assert error.reason == "DeviceInUse"


def test_a_whole_gpu_is_refused_while_a_mig_device_of_it_is_held() -> None:
    holder = held(MIG_NAMES[0], inventory=MIG_NODE)
    assert refusal(an_allocated("gpu-0"), holdings=Holdings((holder,))).reason == "DeviceInUse"


def test_mig_devices_of_one_gpu_go_to_different_claims() -> None:
    holder = held(MIG_NAMES[0], inventory=MIG_NODE)
    planned(an_allocated(MIG_NAMES[1]), holdings=Holdings((holder,)), inventory=MIG_NODE)


def test_the_claims_own_record_and_fence_do_not_stand_in_its_way() -> None:
    own = held("gpu-0", name="claim")
    fence = Fence(uid=own.claim.uid, reason="damaged", devices=("gpu-0",))
    planned(an_allocated("gpu-0"), holdings=Holdings((own,), (fence,)))


def test_admin_access_neither_excludes_nor_is_excluded() -> None:
    admin = a_result("gpu-0", adminAccess=True)
    planned(an_allocated(admin), holdings=Holdings((held("gpu-0"),)))
    planned(an_allocated("gpu-0"), holdings=Holdings((held(admin),)))


def test_shares_of_a_device_do_not_exclude_each_other_but_exclude_others() -> None:
    share = held(a_result("gpu-0", shareID="s-1"))
    planned(an_allocated(a_result("gpu-0", shareID="s-2")), holdings=Holdings((share,)))
    assert refusal(an_allocated("gpu-0"), holdings=Holdings((share,))).reason == "DeviceInUse"


def test_a_claim_with_the_same_gpu_twice_is_refused() -> None:
    error = refusal(an_allocated("gpu-0", a_result("gpu-0", request="second")))
    assert isinstance(error, Permanent)
    assert error.reason == "DeviceConflict"


def test_a_fenced_device_is_granted_to_nobody_and_its_neighbour_is() -> None:
    fence = Fence(uid=a_ref("lost").uid, reason="damaged", devices=(MIG_NAMES[0],))
    holdings = Holdings((), (fence,))
    error = refusal(an_allocated(MIG_NAMES[0]), holdings=holdings, inventory=MIG_NODE)
    assert error.reason == "DeviceFenced"
    planned(an_allocated(MIG_NAMES[1]), holdings=holdings, inventory=MIG_NODE)


@pytest.mark.parametrize(("lost", "wanted"), [("gpu-0", MIG_NAMES[1]), (MIG_NAMES[0], "gpu-0")])
def test_a_fence_stays_when_its_gpu_is_cut_or_made_whole(lost: str, wanted: str) -> None:
    inventory = MIG_NODE if "mig" in wanted else a_node_of(2)
    fence = Fence(uid=a_ref("lost").uid, reason="damaged", devices=(lost,))
    holdings = Holdings((), (fence,))
    assert refusal(an_allocated(wanted), holdings=holdings, inventory=inventory).reason
    planned(an_allocated("gpu-1"), holdings=holdings, inventory=inventory)


def test_a_fence_that_knows_only_the_gpu_covers_all_of_it() -> None:
    fence = Fence(uid=a_ref("lost").uid, reason="damaged", gpu_uuids=(gpu_uuid(0),))
    error = refusal(an_allocated(MIG_NAMES[1]), holdings=Holdings((), (fence,)), inventory=MIG_NODE)
    assert error.reason == "DeviceFenced"


def test_sharing_that_cannot_be_applied_is_a_clear_refusal() -> None:
    claim = an_allocated("gpu-0", config=[a_config_entry(a_config(sharing=mps()))])
    error = refusal(claim, rules=SHARING_RULES)
    assert isinstance(error, Permanent)
    assert '"MPS"' in str(error)


@pytest.mark.parametrize(
    ("sharing", "interval"),
    [
        (time_slicing(interval="Long"), 3),
        (time_slicing(interval="Default"), 0),
        (time_slicing(), 0),
        ({"strategy": "TimeSlicing"}, 0),
    ],
)
def test_a_time_slice_is_set_before_the_cdi_file_is_written(sharing: Body, interval: int) -> None:
    claim = an_allocated("gpu-1", config=[a_config_entry(a_config(sharing=sharing))])
    slice_, cdi = planned(claim, rules=SHARING_RULES).steps
    assert slice_ == TimeSliceStep(claim.ref.uid, gpu_uuid(1), interval)
    assert isinstance(cdi, CdiStep)


def test_only_the_gpus_of_requests_that_ask_for_it_are_shared_by_time() -> None:
    entry = a_config_entry(a_config(sharing=time_slicing(interval="Short")), requests=["shared"])
    results = [a_result(f"gpu-{n}", request=r) for n, r in enumerate(["own", "shared", "shared"])]
    plan = planned(an_allocated(*results, config=[entry]), rules=SHARING_RULES)
    slices = [step for step in plan.steps if isinstance(step, TimeSliceStep)]
    assert [step.gpu_uuid for step in slices] == [gpu_uuid(1), gpu_uuid(2)]


def test_a_step_touches_only_gpus_that_are_locked_for_its_claim() -> None:
    entry = a_config_entry(a_config(sharing=time_slicing(interval="Short")))
    claim = an_allocated("gpu-0", "gpu-3", config=[entry])
    plan = planned(claim, rules=SHARING_RULES)
    touched = frozenset[str]().union(*(step.gpu_uuids for step in plan.steps))
    assert touched <= gpus_of(claim, a_node_of(4))
    assert touched <= a_record(claim, plan).gpu_uuids()


def test_sharing_of_a_request_without_device_here_is_no_matter() -> None:
    entry = a_config_entry(a_config(sharing=mps()), requests=["other"])
    planned(an_allocated("gpu-0", config=[entry]), rules=SHARING_RULES)


@pytest.mark.parametrize("sharing", [time_slicing(interval="Long"), mps()])
def test_admin_access_does_not_apply_sharing(sharing: Body) -> None:
    entry = a_config_entry(a_config(sharing=sharing))
    claim = an_allocated(a_result(adminAccess=True), config=[entry])
    assert [type(step) for step in planned(claim, rules=SHARING_RULES).steps] == [CdiStep]


def test_time_slicing_of_a_mig_device_is_accepted_without_effect() -> None:
    entry = a_config_entry(a_config("MigDeviceConfig", sharing={"strategy": "TimeSlicing"}))
    claim = an_allocated(MIG_NAMES[0], config=[entry])
    plan = planned(claim, inventory=MIG_NODE, rules=SHARING_RULES)
    assert [type(step) for step in plan.steps] == [CdiStep]


def test_gpus_to_lock_are_those_that_may_be_changed() -> None:
    claim = an_allocated("gpu-1", a_result("gpu-2", adminAccess=True), "gpu-9")
    assert gpus_of(claim, a_node_of(4)) == {gpu_uuid(1)}


_names = st.sampled_from([*MIG_NODE.devices, "gpu-0"])
_results = st.builds(
    lambda device, admin: a_result(device, adminAccess=admin), _names, st.booleans()
)


@given(st.lists(st.lists(_results, min_size=1, max_size=3), max_size=6))
def test_no_sequence_of_grants_uses_silicon_twice(claims: list[list[Body]]) -> None:
    records: list[Record] = []
    for number, results in enumerate(claims):
        claim = an_allocated(*results, name=f"claim-{number}")
        try:
            plan = planned(claim, inventory=MIG_NODE, holdings=Holdings(tuple(records)))
        except AgentError:
            continue
        records.append(a_record(claim, plan))
    used = [device.extent for r in records for device in r.devices if not device.admin]
    pairs = [(a, b) for i, a in enumerate(used) for b in used[:i]]
    assert not any(overlap(a, b) for a, b in pairs)
