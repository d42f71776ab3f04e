"""What people read when a claim cannot be satisfied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.scheduler import search
from nvdra_sim.cluster.scheduler.allocator import Unsatisfiable, allocate
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
    some_gpus,
)

if TYPE_CHECKING:
    from nvdra_kube.api import Body

GPU = "device.attributes['gpu.nvidia.com']"


def reasons(claim: Body, *slices: Body, holding: tuple[Body, ...] = (), **extra: Any) -> str:
    outcome = allocate(
        [claim],
        node=a_node(),
        pools=gather_pools(slices),
        usage=usage_of(holding),
        **{"classes": nvidia_classes(), **extra},
    )
    assert isinstance(outcome, Unsatisfiable), outcome
    return " | ".join(outcome.reasons)


def test_no_slices_at_all_is_said_first() -> None:
    assert reasons(a_claim()) == "no ResourceSlices from any driver on this node"


def test_slices_of_another_node_do_not_count() -> None:
    assert "no ResourceSlices" in reasons(a_claim(), a_slice(some_gpus(1), node="node-b"))


def test_a_missing_class_is_named() -> None:
    text = reasons(a_claim("c", a_request(device_class="gpu.example.com")))
    assert text == "claim default/c, request gpu: device class gpu.example.com does not exist"


def test_a_selector_is_quoted_with_the_devices_it_rejected_and_their_values() -> None:
    claim = a_claim("c", a_request("gpu", f"{GPU}.productName == 'H200'"))
    gpus = [a_device(f"gpu-{n}", attributes={"productName": "H100"}) for n in range(2)]
    assert reasons(claim, a_slice(gpus)) == (
        "claim default/c, request gpu (class gpu.nvidia.com): 1 wanted, 0 of 2 devices fit: "
        f"selector `{GPU}.productName == 'H200'` of request gpu rejected gpu-0, gpu-1"
        " (productName = H100)"
    )


def test_devices_with_different_values_are_told_apart() -> None:
    claim = a_claim("c", a_request("gpu", f"{GPU}.index > 7"))
    text = reasons(claim, a_slice(some_gpus(2)))
    assert "rejected gpu-0 (index = 0)" in text
    assert "rejected gpu-1 (index = 1)" in text


def test_capacities_that_a_selector_reads_are_shown() -> None:
    expression = "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('90Gi')) > 0"
    text = reasons(a_claim("c", a_request("gpu", expression)), a_slice(some_gpus(1)))
    assert "rejected gpu-0 (memory = 80Gi)" in text


def test_a_class_that_rejects_everything_is_named() -> None:
    text = reasons(a_claim("c", a_request(device_class="mig.nvidia.com")), a_slice(some_gpus(1)))
    assert "of class mig.nvidia.com rejected gpu-0 (driver = gpu.nvidia.com, type = gpu)" in text


def test_the_holder_of_a_device_is_named() -> None:
    result = {"request": "g", "driver": "gpu.nvidia.com", "pool": "node-a", "device": "gpu-0"}
    other = allocated(a_claim("mine", namespace="team"), {"devices": {"results": [result]}})
    text = reasons(a_claim(), a_slice(some_gpus(1)), holding=(other,))
    assert "gpu-0: in use by claim team/mine" in text


def test_long_lists_of_devices_are_cut() -> None:
    claim = a_claim("c", a_request("gpu", "device.driver == 'x'"))
    text = reasons(claim, a_slice(some_gpus(20)))
    assert "gpu-7 and 12 more" in text


def test_an_incomplete_pool_is_named() -> None:
    text = reasons(a_claim(), a_slice(some_gpus(1), of=2))
    assert "pool gpu.nvidia.com/node-a is incomplete: 1 of 2 slices are published" in text


def test_a_missing_attribute_is_an_error_that_names_device_and_key() -> None:
    claim = a_claim("c", a_request("gpu", f"{GPU}.profile == '1g.5gb'"))
    text = reasons(claim, a_slice(some_gpus(1)))
    assert "device not selected, error" in text
    assert "on gpu-0: no such key: profile" in text


def test_an_error_after_a_device_that_fits_stops_nothing() -> None:
    devices = [a_mig("mig-0"), a_device("gpu-0")]
    claim = a_claim("c", a_request("gpu", f"{GPU}.profile == '1g.5gb'", device_class="any"))
    outcome = allocate(
        [claim],
        node=a_node(),
        pools=gather_pools([a_slice(devices)]),
        usage=usage_of([]),
        classes={"any": a_class("any")},
    )
    assert not isinstance(outcome, Unsatisfiable)


def test_a_selector_that_does_not_compile_is_named_with_its_place() -> None:
    text = reasons(a_claim("c", a_request("gpu", "device.driver =")), a_slice(some_gpus(1)))
    assert "claim default/c, request gpu: selector 0 of request gpu: `device.driver =`" in text


def test_all_alternatives_are_explained() -> None:
    wish = first_available("g", a_request("a", count=2), a_request("b", count=3))
    text = reasons(a_claim("c", wish), a_slice(some_gpus(1)))
    assert "request g/a (class gpu.nvidia.com): 2 wanted, 1 of 1 devices fit" in text
    assert "request g/b (class gpu.nvidia.com): 3 wanted" in text


def test_requests_that_only_fail_together_are_listed_with_their_constraints() -> None:
    rule = [{"requests": [], "matchAttribute": "gpu.nvidia.com/uuid"}]
    text = reasons(
        a_claim("c", a_request("x"), a_request("y"), constraints=rule), a_slice(some_gpus(2))
    )
    assert "not all together: default/c/x, default/c/y" in text
    assert "matchAttribute gpu.nvidia.com/uuid over all requests" in text


def test_an_unknown_constraint_is_refused() -> None:
    text = reasons(a_claim("c", constraints=[{"newKind": "x"}]), a_slice(some_gpus(1)))
    assert "unknown constraint with the fields newKind" in text


def test_a_search_without_end_is_given_up() -> None:
    rule = [{"requests": [], "matchAttribute": "gpu.nvidia.com/group"}]
    devices = [a_device(f"g{n}", attributes={"group": "a"}) for n in range(40)]
    lonely = a_device("z", attributes={"group": "b", "index": 1})
    last = a_request("last", f"has({GPU}.index)")
    claim = a_claim("c", a_request("many", count=12), last, constraints=rule)
    text = reasons(claim, a_slice([*devices, lonely]))
    assert f"no solution found in {search.STEP_LIMIT} attempts" in text


def test_a_request_is_named_once_in_the_error_of_its_selector() -> None:
    claim = a_claim("c", a_request("gpu", f"{GPU}.profile == '1g.5gb'"))
    assert "error: request gpu, selector" in reasons(claim, a_slice(some_gpus(1)))
