"""Looking again and again: hardware and drivers that change, and answers that fail in part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.errors import HardwareError, SessionLost
from nvdra_nodeagent.inventory.surveyor import Surveyor
from nvdra_sim.hardware.calls import GPU_CALLS
from nvdra_testing.simulated import simulated

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.hardware.ports import NvmlDevice
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_sim.hardware import SimulatedHardware

UNKNOWN_ERROR, TIMEOUT, MISMATCH = 999, 10, 18


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hardware(tmp_path: Path) -> SimulatedHardware:
    return simulated(tmp_path, "h100", mig=["1g.10gb", "3g.40gb"])


@pytest.fixture
def surveyor(hardware: SimulatedHardware, clock: Clock) -> Surveyor:
    return Surveyor(hardware.machine, clock=clock)


def names(inventory: Inventory) -> list[str]:
    return [gpu.name for gpu in inventory.gpus]


def test_a_gpu_that_leaves_is_gone_and_one_that_comes_is_there(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    everything = surveyor.look()
    hardware.remove(3)
    assert names(surveyor.look()) == [f"gpu-{n}" for n in range(8) if n != 3]
    hardware.insert(3)
    assert surveyor.look() == everything


def test_a_changed_mig_layout_is_seen(hardware: SimulatedHardware, surveyor: Surveyor) -> None:
    before = set(surveyor.look().devices)
    hardware.destroy_mig(0, hardware.mig_devices(0)[0].gi_id)
    hardware.create_mig(0, "2g.20gb")
    after = set(surveyor.look().devices)
    assert len(before - after) == len(after - before) == 1


def test_a_gpu_that_enters_mig_mode_is_no_longer_offered_whole(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    assert "gpu-1" in surveyor.look().devices
    hardware.set_mig_mode(1, enabled=True)
    assert "gpu-1" not in surveyor.look().devices


def test_a_lost_gpu_is_gone_until_it_answers_again(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    everything = surveyor.look()
    hardware.lose(2)
    assert "gpu-2" not in names(surveyor.look())
    hardware.heal()
    assert surveyor.look() == everything


@pytest.mark.parametrize("call", sorted(set(GPU_CALLS) - {"device_by_uuid", "set_compute_mode"}))
@pytest.mark.parametrize("code", [UNKNOWN_ERROR, TIMEOUT])
@pytest.mark.parametrize("gpu", [0, 2])
def test_a_question_without_an_answer_changes_nothing_that_is_known(
    hardware: SimulatedHardware, surveyor: Surveyor, call: str, code: int, gpu: int
) -> None:
    before = surveyor.look()
    hardware.inject(call, gpu=gpu, code=code)
    after = surveyor.look()
    assert after.gpus == before.gpus


def test_two_gpus_that_say_nothing_are_kept_while_a_third_is_lost(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    surveyor.look()
    for silent in (1, 4):
        hardware.inject("device", gpu=silent, code=UNKNOWN_ERROR)
    hardware.lose(6)
    assert names(surveyor.look()) == [f"gpu-{n}" for n in range(8) if n != 6]


def test_what_stays_known_is_kept_over_many_looks(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    before = surveyor.look()
    hardware.inject("minor_number", gpu=5, code=UNKNOWN_ERROR)
    for _ in range(3):
        after = surveyor.look()
    assert after.gpus == before.gpus
    assert len(after.defects) == 1


def test_a_driver_that_is_unloaded_takes_no_gpu_away(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    before = surveyor.look()
    hardware.driver.unload()
    after = surveyor.look()
    assert after.gpus == before.gpus
    assert after.driver_load == before.driver_load
    assert "Driver Not Loaded" in after.defects[0].cause


def test_a_driver_loaded_anew_is_another_load_without_its_mig_devices(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    before = surveyor.look()
    hardware.driver.unload()
    hardware.driver.load()
    after = surveyor.look()
    assert after.defects == ()
    assert after.driver_version == before.driver_version
    assert after.driver_load != before.driver_load
    assert not any(gpu.mig_devices for gpu in after.gpus)


def test_looks_at_one_load_of_the_driver_have_one_identity(surveyor: Surveyor) -> None:
    assert surveyor.look().driver_load == surveyor.look().driver_load != ""


def test_an_upgraded_driver_is_read_at_the_next_look(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    before = surveyor.look()
    hardware.driver.upgrade("599.1.2")
    after = surveyor.look()
    assert (after.driver_version, after.defects) == ("599.1.2", ())
    assert [gpu.uuid for gpu in after.gpus] == [gpu.uuid for gpu in before.gpus]


def test_files_of_a_driver_that_is_not_loaded_yet_are_said(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    hardware.driver.uninstall()
    hardware.driver.install("599.1.2")
    assert "version mismatch" in surveyor.look().defects[0].cause
    hardware.driver.load()
    assert surveyor.look().driver_version == "599.1.2"


def test_a_driver_may_come_after_the_agent(hardware: SimulatedHardware, surveyor: Surveyor) -> None:
    hardware.driver.unload()
    hardware.driver.uninstall()
    nothing = surveyor.look()
    assert nothing.gpus == ()
    assert "libnvidia-ml.so.1 not found" in nothing.defects[0].cause
    hardware.driver.install("599.1.2")
    hardware.driver.load()
    assert len(surveyor.look().gpus) == 8


@pytest.mark.parametrize("call", ["device_count", "uuid", "driver_version"])
def test_a_session_that_ends_within_a_look_costs_one_more_try(
    hardware: SimulatedHardware, surveyor: Surveyor, call: str
) -> None:
    everything = surveyor.look()
    hardware.inject(call, code=MISMATCH, times=1)
    assert surveyor.look() == everything


def test_nvml_is_begun_anew_for_a_lost_gpu_now_and_then_only(
    hardware: SimulatedHardware, surveyor: Surveyor, clock: Clock
) -> None:
    surveyor.look()
    hardware.lose(1)
    begun = 0
    for _ in range(60):
        device = hardware.machine.nvml.device(0)
        surveyor.look()
        begun += not still_answers(device)
        clock.now_s += 10.0
    assert 2 <= begun <= 12


def still_answers(device: NvmlDevice) -> bool:
    try:
        device.uuid()
    except SessionLost:
        return False
    return True


def test_a_machine_whose_files_cannot_be_searched_is_a_defect(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    before = surveyor.look()
    hardware.inject("numa_node", code=UNKNOWN_ERROR)
    after = surveyor.look()
    assert after.gpus == before.gpus
    assert {defect.attribute for defect in after.defects} == {"numaNode"}


def test_what_cannot_be_surveyed_raises_nothing(
    hardware: SimulatedHardware, surveyor: Surveyor
) -> None:
    hardware.inject(code=UNKNOWN_ERROR)
    with pytest.raises(HardwareError):
        hardware.machine.nvml.init()
    assert surveyor.look().defects
