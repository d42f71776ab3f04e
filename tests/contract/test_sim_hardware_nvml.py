"""The simulated NVML: values, MIG life cycle, failures, and several processes on one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.errors import (
    DriverMissing,
    GpuLost,
    HardwareError,
    NotFound,
    NotSupported,
    NvmlError,
)
from nvdra_nodeagent.hardware.ports import MigMode
from nvdra_nodeagent.inventory.snapshot import take_snapshot
from nvdra_sim.hardware import SimulatedHardware, SimulationError, profile_names
from nvdra_sim.hardware.calls import GPU_CALLS, NODE_CALLS, PCI_CALLS
from nvdra_testing.simulated import first_gpu, simulated

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_gives_a_complete_inventory(tmp_path: Path, profile: str) -> None:
    hardware = simulated(tmp_path, profile)
    inventory = take_snapshot(hardware.machine)
    assert inventory.defects == ()
    assert [gpu.uuid for gpu in inventory.gpus] == [
        hardware.gpu_uuid(index) for index in range(len(hardware.profile.gpus))
    ]
    assert {gpu.memory_bytes for gpu in inventory.gpus} == {hardware.profile.memory_bytes}


@pytest.mark.parametrize("profile", ["a30", "a100-40gb", "h200", "b200", "gb300", "rtx-pro-6000"])
def test_mig_devices_of_every_kind_are_in_the_inventory_by_name(
    tmp_path: Path, profile: str
) -> None:
    hardware = simulated(tmp_path, profile)
    hardware.set_mig_mode(0, enabled=True)
    hardware.reset(0)
    assert hardware.profile.mig is not None
    for kind in hardware.profile.mig.profiles:
        handle = hardware.create_mig(0, kind.name)
        inventory = take_snapshot(hardware.machine)
        (device,) = inventory.gpus[0].mig_devices
        assert (device.profile, device.uuid) == (kind.name, handle.uuid)
        assert inventory.defects == ()
        hardware.destroy_mig(0, handle.gi_id)


def test_calls_before_init_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NvmlError, match="Uninitialized"):
        simulated(tmp_path).machine.nvml.device_count()


def test_init_needs_the_library_in_the_driver_root(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    (hardware.directory / "driver-root/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").unlink()
    with pytest.raises(DriverMissing, match=r"libnvidia-ml.so.1"):
        hardware.machine.nvml.init()


def test_an_index_beyond_the_last_gpu_is_an_invalid_argument(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    hardware.machine.nvml.init()
    with pytest.raises(NvmlError, match="Invalid Argument"):
        hardware.machine.nvml.device(8)


def test_gpus_without_mig_say_so(tmp_path: Path) -> None:
    gpu = first_gpu(simulated(tmp_path, "l40s"))
    with pytest.raises(NotSupported):
        gpu.mig_mode()
    assert gpu.mig_devices() == ()


def test_drivers_without_addressing_mode_say_so(tmp_path: Path) -> None:
    with pytest.raises(NotSupported):
        first_gpu(simulated(tmp_path, "v100")).addressing_mode()


def test_mig_mode_waits_for_a_reset_before_hopper_only(tmp_path: Path) -> None:
    ampere = simulated(tmp_path / "ampere", "a100-80gb")
    hopper = simulated(tmp_path / "hopper", "h100")
    for hardware in (ampere, hopper):
        hardware.set_mig_mode(0, enabled=True)
    assert first_gpu(ampere).mig_mode() == MigMode(current=False, pending=True)
    assert first_gpu(hopper).mig_mode() == MigMode(current=True, pending=True)
    with pytest.raises(NotSupported):
        first_gpu(ampere).gi_profile(0)
    ampere.reset(0)
    assert first_gpu(ampere).mig_mode() == MigMode(current=True, pending=True)
    assert first_gpu(ampere).gi_profile(0).id == 19


def test_an_instance_tells_its_placement_and_profile(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, mig=["3g.40gb"])
    gpu = first_gpu(hardware)
    (handle,) = gpu.mig_devices()
    instance = gpu.gpu_instance(handle.gi_id)
    assert (instance.profile_id, instance.placement.start, instance.placement.size) == (9, 4, 4)
    compute = gpu.compute_instance(handle.gi_id, handle.ci_id)
    assert (compute.gi_id, compute.slice_count) == (handle.gi_id, 3)
    with pytest.raises(NotFound):
        gpu.compute_instance(handle.gi_id, handle.ci_id + 1)
    with pytest.raises(NotFound):
        gpu.gpu_instance(14)


def test_creation_answers_as_the_driver_does(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    with pytest.raises(NotSupported):
        hardware.create_mig(0, "1g.10gb")
    hardware.set_mig_mode(0, enabled=True)
    hardware.create_mig(0, "4g.40gb")
    with pytest.raises(NvmlError, match="Insufficient Resources"):
        hardware.create_mig(0, "4g.40gb")
    with pytest.raises(NvmlError, match="Insufficient Resources"):
        hardware.create_mig(0, "2g.20gb", start=2)
    with pytest.raises(NvmlError, match="Invalid Argument"):
        hardware.create_mig(0, "2g.20gb", start=3)
    with pytest.raises(SimulationError, match=r"no MIG profile '9g.1gb'"):
        hardware.create_mig(0, "9g.1gb")
    with pytest.raises(NvmlError, match="In use"):
        hardware.set_mig_mode(0, enabled=False)


def test_a_destroyed_device_is_gone_and_its_place_is_free(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, mig=["7g.80gb"])
    (handle,) = hardware.mig_devices(0)
    hardware.destroy_mig(0, handle.gi_id)
    assert first_gpu(hardware).mig_devices() == ()
    with pytest.raises(NotFound):
        hardware.destroy_mig(0, handle.gi_id)
    assert hardware.create_mig(0, "7g.80gb") == handle


@pytest.mark.parametrize("call", [call for call in GPU_CALLS if "device" not in call.split("_")])
def test_every_call_about_a_gpu_can_be_made_to_fail_for_that_gpu_alone(
    tmp_path: Path, call: str
) -> None:
    hardware = simulated(tmp_path, mig=["1g.10gb"])
    hardware.inject(call, gpu=0)
    nvml = hardware.machine.nvml
    nvml.init()
    arguments = {
        "gi_profile": (0,),
        "gpu_instance": (13,),
        "compute_instance": (13, 0),
        "set_compute_mode": (3,),
    }
    method = getattr(nvml.device(0), call)
    with pytest.raises(NvmlError) as caught:
        method(*arguments.get(call, ()))
    assert (caught.value.code, caught.value.call) == (999, GPU_CALLS[call])
    assert nvml.device(1).uuid() == hardware.gpu_uuid(1)


@pytest.mark.parametrize("call", [call for call in NODE_CALLS if call != "shutdown"])
def test_every_call_about_the_node_can_be_made_to_fail(tmp_path: Path, call: str) -> None:
    hardware = simulated(tmp_path)
    nvml = hardware.machine.nvml
    if call != "init":
        nvml.init()
    hardware.inject(call, code=9)
    with pytest.raises(NvmlError, match="Driver Not Loaded"):
        getattr(nvml, call)()
    hardware.heal()
    getattr(nvml, call)()


@pytest.mark.parametrize("call", sorted(PCI_CALLS))
def test_questions_to_sysfs_can_be_made_to_fail(tmp_path: Path, call: str) -> None:
    hardware = simulated(tmp_path)
    hardware.inject(call, gpu=1)
    method = getattr(hardware.machine.pci, call)
    assert method("0000:1b:00.0") is not None
    with pytest.raises(HardwareError, match=call):
        method("0000:43:00.0")


def test_a_fault_ends_after_its_number_of_times(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    gpu = first_gpu(hardware)
    hardware.inject("uuid", code=10, times=2)
    for _ in range(2):
        with pytest.raises(NvmlError, match="Timeout"):
            gpu.uuid()
    assert gpu.uuid() == hardware.gpu_uuid(0)
    assert hardware.state().faults == ()


def test_a_slow_call_still_answers(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    hardware.inject("name", code=0, latency_s=0.001, times=1)
    assert first_gpu(hardware).name() == "NVIDIA H100 80GB HBM3"


def test_error_codes_become_the_classes_that_callers_tell_apart(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    gpu = first_gpu(hardware)
    for code, kind in ((3, NotSupported), (13, NotSupported), (6, NotFound), (15, GpuLost)):
        hardware.inject("brand", code=code, times=1)
        with pytest.raises(kind):
            gpu.brand()


def test_a_lost_gpu_fails_every_call_until_healed(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    gpu = first_gpu(hardware)
    hardware.lose(0)
    with pytest.raises(GpuLost):
        gpu.name()
    with pytest.raises(GpuLost):
        hardware.machine.nvml.device(0)
    assert len(take_snapshot(hardware.machine).gpus) == 7
    hardware.heal(0)
    assert gpu.name() == "NVIDIA H100 80GB HBM3"


def test_faults_of_unknown_calls_and_gpus_are_refused(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    with pytest.raises(SimulationError, match=r"no call is named 'serial'.*uuid"):
        hardware.inject("serial")
    with pytest.raises(SimulationError, match="no GPU 8"):
        hardware.inject("uuid", gpu=8)


def test_faults_written_into_the_file_by_hand_play(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    gpu = first_gpu(hardware)
    file = hardware.directory / "hardware.json"
    document = json.loads(file.read_text())
    document["faults"] = [{"gpu": 0, "call": "*", "code": 16}]
    file.write_text(json.dumps(document))
    with pytest.raises(NvmlError, match="requires reset"):
        gpu.uuid()


def test_another_process_sees_and_makes_changes(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    gpu = first_gpu(hardware)
    program = (
        "import sys, pathlib\n"
        "from nvdra_sim.hardware import SimulatedHardware\n"
        "hardware = SimulatedHardware.attach(pathlib.Path(sys.argv[1]))\n"
        "hardware.set_mig_mode(0, enabled=True)\n"
        "print(hardware.create_mig(0, '1g.10gb').uuid)\n"
    )
    command = [sys.executable, "-c", program, str(hardware.directory)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [handle.uuid for handle in gpu.mig_devices()] == [printed.strip()]


def test_two_openers_at_once_make_one_machine(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from nvdra_sim.hardware import SimulatedHardware\n"
        "SimulatedHardware.open('h100', pathlib.Path(sys.argv[1]), node='n').lose(int(sys.argv[2]))"
    )
    directory = tmp_path / "shared"
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(directory), str(gpu)])
        for gpu in range(4)
    ]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    state = SimulatedHardware.attach(directory).state()
    assert [gpu.lost for gpu in state.gpus] == [True] * 4 + [False] * 4
