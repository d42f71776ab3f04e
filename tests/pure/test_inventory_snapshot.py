"""The snapshot: what it reads, and what survives when the machine does not answer."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest

from nvdra_nodeagent.hardware.errors import GpuLost, HardwareError
from nvdra_nodeagent.hardware.ports import CiInstance, MigMode, NvmlDevice
from nvdra_nodeagent.inventory.model import Gpu, Inventory
from nvdra_nodeagent.inventory.snapshot import take_snapshot
from nvdra_testing.machine import (
    ONE_G,
    THREE_G,
    Failing,
    PlainGpu,
    PlainNvml,
    PlainPci,
    a_machine,
    a_mig_gpu,
    gpu_uuid,
    not_supported,
    nvml_error,
)

# What claims and the driver of ComputeDomains ask for is none of the inventory's business.
_OF_OTHERS = {"compute_mode", "fabric_info", "set_compute_mode"}
NVML_CALLS = sorted(
    name
    for name, _ in inspect.getmembers(NvmlDevice, inspect.isfunction)
    if name[0] != "_" and name not in _OF_OTHERS
)


def only_gpu(inventory: Inventory) -> Gpu:
    (gpu,) = inventory.gpus
    return gpu


def test_a_gpu_is_described_by_what_the_machine_says() -> None:
    assert only_gpu(take_snapshot(a_machine(PlainGpu(minor=3)))) == Gpu(
        name="gpu-3",
        minor=3,
        uuid=gpu_uuid(3),
        product_name="NVIDIA H100 80GB HBM3",
        brand="Nvidia",
        architecture="Hopper",
        compute_capability="9.0.0",
        driver_version="570.158.1",
        cuda_driver_version="12.8.0",
        pci_bus_id="0000:13:00.0",
        pcie_root="pci0000:00",
        numa_node=0,
        addressing_mode="HMM",
        memory_bytes=81559 * 1024**2,
        mig_capable=True,
    )


def test_the_driver_version_is_kept_as_nvml_prints_it_for_file_names() -> None:
    assert take_snapshot(a_machine()).driver_version == "570.158.01"


def test_a_machine_without_gpus_has_an_empty_inventory() -> None:
    assert take_snapshot(a_machine()).gpus == ()


def test_gpus_come_in_the_order_of_the_bus() -> None:
    late, early = PlainGpu(0, bus_id="00000000:B1:00.0"), PlainGpu(1, bus_id="00000000:2A:00.0")
    far = PlainGpu(2, bus_id="00010000:01:00.0")
    inventory = take_snapshot(a_machine(far, late, early))
    assert [gpu.name for gpu in inventory.gpus] == ["gpu-1", "gpu-0", "gpu-2"]


def test_the_display_adapter_of_a_dgx_station_is_no_gpu() -> None:
    inventory = take_snapshot(a_machine(PlainGpu(0, product="NVIDIA DGX Display"), PlainGpu(1)))
    assert [gpu.name for gpu in inventory.gpus] == ["gpu-1"]
    assert inventory.defects == ()


@pytest.mark.parametrize("method", NVML_CALLS)
@pytest.mark.parametrize("error", [nvml_error("nvmlX"), GpuLost("nvmlX", code=15, reason="lost")])
def test_one_call_failing_on_one_gpu_leaves_the_others_as_they_were(
    method: str, error: Exception
) -> None:
    cut = ((ONE_G, 0, 1), (THREE_G, 4, 4))
    gpus = [a_mig_gpu(minor, cut=cut) for minor in range(3)]
    whole = take_snapshot(a_machine(*gpus))
    broken = take_snapshot(a_machine(gpus[0], Failing(gpus[1], method, error), gpus[2]))
    assert [gpu for gpu in broken.gpus if gpu.minor != 1] == [whole.gpus[0], whole.gpus[2]]
    assert any("nvmlX" in defect.cause for defect in broken.defects)


@pytest.mark.parametrize("method", NVML_CALLS)
def test_a_call_that_fails_once_leaves_a_defect_and_no_exception(method: str) -> None:
    gpu = Failing(a_mig_gpu(cut=((ONE_G, 0, 1),)), method, nvml_error("nvmlX"), times=1)
    inventory = take_snapshot(a_machine(gpu))
    assert "nvmlX" in inventory.defects[0].cause


def test_a_gpu_without_a_handle_is_named_by_its_index() -> None:
    lost = GpuLost("nvmlDeviceGetHandleByIndex", code=15, reason="GPU is lost")
    inventory = take_snapshot(a_machine(PlainGpu(0), lost))
    assert [gpu.name for gpu in inventory.gpus] == ["gpu-0"]
    (defect,) = inventory.defects
    assert (defect.device, defect.attribute) == ("index 1", "")
    assert "nvmlDeviceGetHandleByIndex" in defect.cause


@pytest.mark.parametrize("method", ["uuid", "name", "pci_bus_id", "compute_capability", "mig_mode"])
def test_a_gpu_that_fails_a_mandatory_call_is_left_out_by_name(method: str) -> None:
    inventory = take_snapshot(a_machine(Failing(PlainGpu(2), method, nvml_error("nvmlX"))))
    assert inventory.gpus == ()
    assert [(defect.device, defect.attribute) for defect in inventory.defects] == [("gpu-2", "")]


@pytest.mark.parametrize(
    ("answers", "attribute", "value"),
    [
        ({"memory": nvml_error("x")}, "memory_bytes", None),
        ({"addressing": nvml_error("x")}, "addressing_mode", None),
        ({"addressing": 7}, "addressing_mode", None),
        ({"brand_number": nvml_error("x")}, "brand", "Unknown"),
        ({"brand_number": 4711}, "brand", "Unknown"),
        ({"arch": 4711}, "architecture", "Unknown"),
    ],
)
def test_an_optional_fact_that_is_missing_costs_only_itself(
    answers: dict[str, object], attribute: str, value: object
) -> None:
    inventory = take_snapshot(a_machine(PlainGpu(0, **answers)))  # type: ignore[arg-type]
    assert getattr(only_gpu(inventory), attribute) == value
    assert [defect.device for defect in inventory.defects] == ["gpu-0"]


@pytest.mark.parametrize("answer", ["memory", "addressing", "mig"])
def test_what_a_gpu_does_not_support_is_no_defect(answer: str) -> None:
    gpu = PlainGpu(0)
    setattr(gpu, answer, not_supported("nvmlX"))
    inventory = take_snapshot(a_machine(gpu))
    assert (len(inventory.gpus), inventory.defects) == (1, ())


def test_a_gpu_without_mig_is_not_mig_capable() -> None:
    gpu = only_gpu(take_snapshot(a_machine(PlainGpu(0, mig=not_supported("nvmlX")))))
    assert (gpu.mig_capable, gpu.mig_enabled) == (False, False)


def test_mig_mode_that_is_only_pending_does_not_count() -> None:
    gpu = PlainGpu(0, mig=MigMode(current=False, pending=True))
    assert not only_gpu(take_snapshot(a_machine(gpu))).mig_enabled


def test_sysfs_without_answers_costs_two_attributes() -> None:
    broken = PlainPci(numa=HardwareError("no numa"), root=HardwareError("no link"))
    inventory = take_snapshot(a_machine(PlainGpu(0), pci=broken))
    gpu = only_gpu(inventory)
    assert (gpu.numa_node, gpu.pcie_root) == (None, None)
    assert {defect.attribute for defect in inventory.defects} == {"numaNode", "pcieRoot"}


def test_an_address_that_is_none_leaves_the_gpu_out() -> None:
    inventory = take_snapshot(a_machine(PlainGpu(0, bus_id="nonsense"), PlainGpu(1)))
    assert [gpu.name for gpu in inventory.gpus] == ["gpu-1"]
    assert "'nonsense' is no PCI address" in inventory.defects[0].cause


@pytest.mark.parametrize("version", ["rel-570", "", nvml_error("nvmlSystemGetDriverVersion")])
def test_a_driver_version_that_makes_no_sense_costs_one_attribute(version: str) -> None:
    nvml = PlainNvml([PlainGpu(0)], driver=version)
    inventory = take_snapshot(a_machine(nvml=nvml))
    assert only_gpu(inventory).driver_version == ""
    assert all(defect.device == "node" for defect in inventory.defects)


def test_a_cuda_version_that_cannot_be_read_costs_one_attribute() -> None:
    error = nvml_error("nvmlSystemGetCudaDriverVersion")
    inventory = take_snapshot(a_machine(nvml=PlainNvml([PlainGpu(0)], cuda=error)))
    assert only_gpu(inventory).cuda_driver_version == ""
    assert inventory.defects[0].attribute == "cudaDriverVersion"


def test_without_a_count_nothing_is_known_and_the_caller_learns_it() -> None:
    nvml = PlainNvml([PlainGpu(0)], count=nvml_error("nvmlDeviceGetCount"))
    with pytest.raises(HardwareError, match="nvmlDeviceGetCount"):
        take_snapshot(a_machine(nvml=nvml))


def test_of_two_gpus_with_one_minor_number_the_first_stays() -> None:
    inventory = take_snapshot(a_machine(PlainGpu(0), PlainGpu(0, bus_id="00000000:99:00.0")))
    assert only_gpu(inventory).pci_bus_id == "0000:10:00.0"
    assert "minor number" in inventory.defects[0].cause


def test_mig_devices_stand_for_their_gpu() -> None:
    gpu = a_mig_gpu(1, cut=((THREE_G, 4, 4), (ONE_G, 0, 1)))
    inventory = take_snapshot(a_machine(gpu))
    assert list(inventory.devices) == ["gpu-1-mig-1g10gb-19-0", "gpu-1-mig-3g40gb-9-4"]
    large = inventory.devices["gpu-1-mig-3g40gb-9-4"].mig
    assert large is not None
    assert (large.uuid, large.profile, large.gi_id, large.ci_id) == ("MIG-1-1", "3g.40gb", 1, 0)
    assert (large.placement_start, large.placement_size) == (4, 4)
    assert large.engines.memory_bytes == 40320 * 1024**2


def test_mig_mode_without_mig_devices_offers_nothing() -> None:
    inventory = take_snapshot(a_machine(a_mig_gpu()))
    assert (len(inventory.gpus), dict(inventory.devices)) == (1, {})


def test_a_compute_instance_of_a_part_is_skipped_and_said() -> None:
    gpu = a_mig_gpu(cut=((THREE_G, 4, 4), (ONE_G, 0, 1)))
    gpu.cis[1, 0] = CiInstance(0, 1, profile_id=0, slice_count=1)
    inventory = take_snapshot(a_machine(gpu))
    assert list(inventory.devices) == ["gpu-0-mig-1g10gb-19-0"]
    assert "covers 1 of 3 slices" in inventory.defects[0].cause


def test_an_instance_of_an_unlisted_profile_is_skipped_and_said() -> None:
    gpu = a_mig_gpu(cut=((THREE_G, 4, 4), (replace(ONE_G, id=77), 0, 1)))
    inventory = take_snapshot(a_machine(gpu))
    assert list(inventory.devices) == ["gpu-0-mig-3g40gb-9-4"]
    assert "profile id 77" in inventory.defects[0].cause


def test_mig_devices_of_a_gpu_of_unknown_size_have_no_names() -> None:
    inventory = take_snapshot(
        a_machine(a_mig_gpu(cut=((ONE_G, 0, 1),), memory=nvml_error("nvmlDeviceGetMemoryInfo")))
    )
    assert dict(inventory.devices) == {}
    assert [defect.attribute for defect in inventory.defects] == ["memory", "MIG-0-1"]


def test_two_mig_devices_in_one_place_count_once() -> None:
    inventory = take_snapshot(a_machine(a_mig_gpu(cut=((ONE_G, 0, 1), (ONE_G, 0, 1)))))
    assert list(inventory.devices) == ["gpu-0-mig-1g10gb-19-0"]
    assert "MIG-0-2 has the name" in inventory.defects[0].cause
