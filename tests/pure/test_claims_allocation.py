"""Claims from the API become values once, and wrong ones say what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nvdra_nodeagent.claims.allocation import parse_claim
from nvdra_nodeagent.errors import Permanent
from nvdra_testing.claims import (
    DRIVER,
    NODE,
    a_claim_body,
    a_config_entry,
    a_ref,
    a_result,
    an_allocated,
)
from nvdra_testing.configs import a_config

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.allocation import AllocatedClaim

REF = a_ref()


def parse(body: Body) -> AllocatedClaim:
    return parse_claim(body, ref=REF, driver=DRIVER, pool=NODE)


def refusal(body: Body) -> Permanent:
    with pytest.raises(Permanent) as caught:
        parse(body)
    return caught.value


def test_results_of_other_drivers_are_left_out_and_order_is_kept() -> None:
    foreign = {**a_result("nic-0"), "driver": "nic.example.com", "pool": "elsewhere"}
    claim = parse(a_claim_body(REF, "gpu-3", foreign, "gpu-1"))
    assert [result.device for result in claim.results] == ["gpu-3", "gpu-1"]


def test_unknown_fields_of_newer_servers_are_ignored() -> None:
    body = a_claim_body(REF, a_result(skipNodeOperations=["x"], consumedCapacity={"m": "1"}))
    body["status"]["allocation"]["allocationTimestamp"] = "2030-01-01T00:00:00Z"
    assert parse(body).results[0].device == "gpu-0"


def test_null_lists_and_flags_count_as_absent() -> None:
    body = a_claim_body(REF, a_result(adminAccess=None, shareID=None))
    body["status"]["allocation"]["devices"]["config"] = None
    claim = parse(body)
    assert (claim.configs, claim.results[0].admin) == ((), False)


def test_a_sub_request_belongs_to_its_main_request() -> None:
    assert parse(a_claim_body(REF, a_result(request="any/big"))).results[0].main_request == "any"


@pytest.mark.parametrize("status", [{}, {"allocation": None}, None])
def test_an_unallocated_claim_is_refused(status: Body | None) -> None:
    assert refusal({**a_claim_body(REF), "status": status}).reason == "NotAllocated"


def test_a_claim_without_status_is_refused() -> None:
    body = a_claim_body(REF)
    del body["status"]
    assert refusal(body).reason == "NotAllocated"


def test_an_allocation_without_a_device_of_ours_is_refused() -> None:
    assert refusal(a_claim_body(REF)).reason == "NotAllocated"


def test_a_claim_of_the_same_name_with_another_uid_got_replaced() -> None:
    error = refusal(a_claim_body(a_ref("other"), "gpu-0"))
    assert error.reason == "ClaimReplaced"
    assert "got replaced" in str(error)


def test_a_device_of_another_pool_names_both_pools() -> None:
    error = refusal(a_claim_body(REF, {**a_result(), "pool": "node-b"}))
    assert error.reason == "WrongNode"
    assert "node-b" in str(error)
    assert NODE in str(error)


@pytest.mark.parametrize(
    ("part", "value"), [("results", "gpu-0"), ("results", [{"device": 1}]), ("config", [1])]
)
def test_a_malformed_object_names_the_place(part: str, value: Any) -> None:
    body = a_claim_body(REF, "gpu-0")
    body["status"]["allocation"]["devices"][part] = value
    error = refusal(body)
    assert error.reason == "MalformedClaim"
    assert f"$.status.allocation.devices.{part}" in str(error)


def test_the_fingerprint_tells_allocations_apart() -> None:
    one = an_allocated("gpu-0").fingerprint
    assert an_allocated("gpu-0").fingerprint == one
    assert an_allocated("gpu-1").fingerprint != one
    assert an_allocated(a_result(adminAccess=True)).fingerprint != one


def test_the_fingerprint_ignores_what_belongs_to_other_drivers() -> None:
    foreign = a_config_entry({"x": 1}, driver="nic.example.com")
    assert an_allocated(config=[foreign]).fingerprint == an_allocated().fingerprint
    assert (
        an_allocated(config=[a_config_entry(a_config())]).fingerprint != an_allocated().fingerprint
    )
