"""From inventory to the contents of the node's pool."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.slices.body import device_body
from nvdra_nodeagent.slices.limits import fit
from nvdra_nodeagent.slices.model import SliceDevice, Version
from nvdra_nodeagent.slices.planner import PoolPlan, plan_pool
from nvdra_testing.inventories import (
    a_gpu,
    a_mig_device,
    a_partitioned_gpu,
    an_inventory,
)

if TYPE_CHECKING:
    from nvdra_nodeagent.inventory.model import Gpu

SERVER = (1, 35)
DOMAIN = "resource.kubernetes.io"


def pool_of(*gpus: Gpu) -> PoolPlan:
    return plan_pool(an_inventory(*gpus), node="node-1", server=SERVER)


def device_of(gpu: Gpu, *, list_attributes: bool = False) -> SliceDevice:
    plan = plan_pool(
        an_inventory(gpu), node="node-1", server=(1, 36), list_attributes=list_attributes
    )
    (content,) = plan.slices
    return content.devices[0]


def test_a_gpu_has_the_attributes_that_selectors_are_written_for() -> None:
    assert device_body(device_of(a_gpu(3)), version="v1") == {
        "name": "gpu-3",
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": "GPU-00000000-0000-0000-0000-000000000003"},
            "productName": {"string": "NVIDIA H100 80GB HBM3"},
            "brand": {"string": "Nvidia"},
            "architecture": {"string": "Hopper"},
            "cudaComputeCapability": {"version": "9.0.0"},
            "driverVersion": {"version": "570.158.1"},
            "cudaDriverVersion": {"version": "12.8.0"},
            "addressingMode": {"string": "HMM"},
            f"{DOMAIN}/pciBusID": {"string": "0000:13:00.0"},
            f"{DOMAIN}/pcieRoot": {"string": "pci0000:00"},
            f"{DOMAIN}/numaNode": {"int": 1},
        },
        "capacity": {"memory": {"value": "80Gi"}},
    }


def test_facts_that_the_machine_does_not_know_are_absent() -> None:
    gpu = a_gpu(
        pcie_root=None, numa_node=None, addressing_mode=None, memory_bytes=None, driver_version=""
    )
    device = device_of(gpu)
    assert set(device.attributes) == {
        "type",
        "uuid",
        "productName",
        "brand",
        "architecture",
        "cudaComputeCapability",
        "cudaDriverVersion",
        f"{DOMAIN}/pciBusID",
    }
    assert device.capacity == {}


def test_memory_that_is_no_whole_gibibyte_is_printed_canonically() -> None:
    device = device_of(a_gpu(memory_bytes=81559 * 1024**2))
    assert device_body(device, version="v1")["capacity"] == {"memory": {"value": "81559Mi"}}


def test_numa_node_zero_is_known() -> None:
    assert device_of(a_gpu(numa_node=0)).attributes[f"{DOMAIN}/numaNode"] == 0


def test_numa_nodes_are_lists_where_the_gate_and_the_server_have_them() -> None:
    device = device_of(a_gpu(), list_attributes=True)
    body = device_body(device, version="v1")
    assert body["attributes"][f"{DOMAIN}/numaNode"] == {"ints": [1]}


def test_an_older_server_gets_no_list_attributes() -> None:
    inventory = an_inventory(a_gpu())
    plan = plan_pool(inventory, node="n", server=(1, 35), list_attributes=True)
    assert plan.slices[0].devices[0].attributes[f"{DOMAIN}/numaNode"] == 1


def test_an_address_outside_the_standard_form_is_not_published() -> None:
    device = device_of(a_gpu(pci_bus_id="10000:01:00.0"))
    assert f"{DOMAIN}/pciBusID" not in device.attributes


def test_mig_devices_stand_for_their_gpu_with_its_facts_and_their_engines() -> None:
    device = device_of(a_partitioned_gpu(0, devices=1))
    body = device_body(device, version="v1")
    assert body["name"] == "gpu-0-mig-1g10gb-19-0"
    assert body["attributes"]["type"] == {"string": "mig"}
    assert body["attributes"]["uuid"] == {"string": "MIG-0-0"}
    assert body["attributes"]["profile"] == {"string": "1g.10gb"}
    assert body["attributes"]["parentUUID"] == {"string": a_gpu(0).uuid}
    assert body["attributes"]["productName"] == {"string": "NVIDIA H100 80GB HBM3"}
    assert body["capacity"] == {
        "multiprocessors": {"value": "16"},
        "copyEngines": {"value": "1"},
        "decoders": {"value": "1"},
        "encoders": {"value": "0"},
        "jpegEngines": {"value": "1"},
        "ofaEngines": {"value": "0"},
        "memory": {"value": "9856Mi"},
        "memorySlice0": {"value": "1"},
    }


def test_a_mig_device_names_each_memory_slice_that_it_covers() -> None:
    gpu = a_gpu(mig_enabled=True, mig_devices=(a_mig_device(start=4, size=4),))
    slices = {name for name in device_of(gpu).capacity if name.startswith("memorySlice")}
    assert slices == {"memorySlice4", "memorySlice5", "memorySlice6", "memorySlice7"}


def test_a_partitioned_gpu_without_partitions_offers_nothing() -> None:
    assert [content.devices for content in pool_of(a_partitioned_gpu(devices=0)).slices] == [()]


def test_a_node_without_gpus_has_one_empty_slice() -> None:
    assert [content.devices for content in pool_of().slices] == [()]


def test_devices_follow_the_bus_not_the_minor_number() -> None:
    late, early = a_gpu(0, pci_bus_id="0000:b1:00.0"), a_partitioned_gpu(1, devices=2)
    (content,) = pool_of(late, early).slices
    names = [device.name for device in content.devices]
    assert names == ["gpu-1-mig-1g10gb-19-0", "gpu-1-mig-1g10gb-19-1", "gpu-0"]


@pytest.mark.parametrize(("devices", "slices"), [(63, [63]), (64, [64]), (65, [64, 1])])
def test_a_slice_holds_sixty_four_devices(devices: int, slices: list[int]) -> None:
    plan = pool_of(*(a_gpu(minor) for minor in range(devices)))
    assert [len(content.devices) for content in plan.slices] == slices


@given(st.permutations(range(16)))
def test_the_plan_does_not_depend_on_the_order_of_discovery(minors: list[int]) -> None:
    gpus = {n: a_partitioned_gpu(n) if n % 3 else a_gpu(n) for n in minors}
    assert pool_of(*gpus.values()) == pool_of(*(gpus[minor] for minor in sorted(gpus)))


@given(st.integers(0, 150))
def test_every_device_is_published_once(count: int) -> None:
    plan = pool_of(*(a_gpu(minor) for minor in range(count)))
    found = [device.name for content in plan.slices for device in content.devices]
    assert found == [f"gpu-{minor}" for minor in range(count)]


def test_a_device_with_the_name_of_another_is_left_out() -> None:
    plan = pool_of(a_gpu(0), a_gpu(0, uuid="GPU-other", pci_bus_id="0000:99:00.0"))
    assert len(plan.slices[0].devices) == 1
    assert [defect.device for defect in plan.defects] == ["gpu-0"]
    assert "GPU-other" in plan.defects[0].cause


@pytest.mark.parametrize("name", ["x" * 64, "GPU-0", "gpu_0", "", "gpu-0-"])
def test_a_device_whose_name_is_no_label_is_left_out(name: str) -> None:
    plan = pool_of(a_gpu(0, name=name), a_gpu(1))
    assert [device.name for device in plan.slices[0].devices] == ["gpu-1"]
    assert "DNS label" in plan.defects[0].cause


def test_a_device_with_too_many_facts_is_left_out() -> None:
    crowded = SliceDevice("gpu-0", {f"a{number}": number for number in range(33)})
    fitted, (defect,) = fit(crowded)
    assert fitted is None
    assert "33 attributes and capacities" in defect.cause


def test_a_mig_device_that_covers_a_whole_gpu_is_within_the_limit() -> None:
    gpu = a_gpu(mig_enabled=True, mig_devices=(a_mig_device(size=8),))
    assert pool_of(gpu).defects == ()


@pytest.mark.parametrize(
    ("facts", "attribute"),
    [
        ({"product_name": "ü" * 33}, "productName"),
        ({"driver_version": "570.158.01"}, "driverVersion"),
        ({"driver_version": "1.0.0+" + "x" * 64}, "driverVersion"),
    ],
)
def test_a_value_that_no_server_takes_costs_one_attribute(
    facts: dict[str, str], attribute: str
) -> None:
    plan = pool_of(a_gpu(0, **facts))
    assert attribute not in plan.slices[0].devices[0].attributes
    assert [(defect.device, defect.attribute) for defect in plan.defects] == [("gpu-0", attribute)]


@pytest.mark.parametrize("name", ["1st", "a-b", "x" * 33, "Upper.Domain/a", "/a", "a/b/c"])
def test_an_attribute_name_that_no_server_takes_is_left_out(name: str) -> None:
    fitted, defects = fit(SliceDevice("gpu-0", {name: 1, "good": 2}))
    assert fitted is not None
    assert dict(fitted.attributes) == {"good": 2}
    assert [defect.attribute for defect in defects] == [name]


@given(
    st.dictionaries(
        st.text(max_size=40), st.one_of(st.text(max_size=80), st.integers(), st.booleans())
    ),
    st.text(max_size=70),
)
def test_whatever_is_described_only_valid_devices_are_published(
    attributes: dict[str, str | int | bool], name: str
) -> None:
    fitted, defects = fit(SliceDevice(name, attributes))
    if fitted is None:
        assert defects
        return
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fitted.name)
    assert len(fitted.attributes) <= 32
    assert all(
        len(str(value).encode()) <= 64 or isinstance(value, int)
        for value in fitted.attributes.values()
    )


def test_a_version_attribute_is_a_version_also_when_it_looks_like_text() -> None:
    body = device_body(SliceDevice("d", {"v": Version("1.2.3"), "t": "1.2.3"}), version="v1")
    assert body["attributes"] == {"t": {"string": "1.2.3"}, "v": {"version": "1.2.3"}}
