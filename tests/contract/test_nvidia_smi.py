"""What every nvidia-smi promises: the driver's (a script plays it), and the simulated one."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.driver_root import MountedDriverRoot
from nvdra_nodeagent.hardware.errors import (
    DriverMissing,
    GpuLost,
    HardwareError,
    NotFound,
    NotSupported,
    ProgramFailed,
    ProgramTimedOut,
)
from nvdra_nodeagent.hardware.nvidia_smi import DriverNvidiaSmi, listed_time_slice
from nvdra_testing.simulated import simulated
from nvdra_testing.smi_program import SmiProgram, an_smi_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nvdra_nodeagent.hardware.ports import NvidiaSmi

GPUS = tuple(f"GPU-00000000-0000-0000-0000-00000000000{index}" for index in range(2))
STRANGER = "GPU-99999999-9999-9999-9999-999999999999"


@dataclass(frozen=True)
class Scene:
    smi: NvidiaSmi
    gpus: tuple[str, ...]
    program: Path
    fail: Callable[[int], None]
    """End every call from now on with a status."""


def driver_smi(
    program: SmiProgram,
    *,
    timeout_s: float = 30.0,
    kill: Callable[[int, int], None] = os.killpg,
) -> DriverNvidiaSmi:
    root = MountedDriverRoot(program.driver_root, host_path=program.driver_root)
    return DriverNvidiaSmi(root, timeout_s=timeout_s, kill=kill)


@pytest.fixture
def program(tmp_path: Path) -> SmiProgram:
    return an_smi_program(tmp_path / "root", gpus=GPUS)


@pytest.fixture(params=["program", "simulated"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    if request.param == "program":
        program: SmiProgram = request.getfixturevalue("program")
        return Scene(driver_smi(program), GPUS, program.path, program.fail)
    hardware = simulated(tmp_path)
    path = hardware.directory / "driver-root/usr/bin/nvidia-smi"
    uuids = tuple(hardware.gpu_uuid(index) for index in range(2))
    return Scene(
        hardware.machine.nvidia_smi, uuids, path, lambda status: hardware.inject(code=status)
    )


def test_a_gpu_begins_with_the_default_time_slice(scene: Scene) -> None:
    assert [scene.smi.time_slice(gpu) for gpu in scene.gpus] == [0, 0]


@pytest.mark.parametrize("interval", [3, 2, 1, 0])
def test_the_time_slice_of_one_gpu_stays_as_it_was_set(scene: Scene, interval: int) -> None:
    scene.smi.set_time_slice(scene.gpus[1], interval)
    assert [scene.smi.time_slice(gpu) for gpu in scene.gpus] == [0, interval]


def test_a_time_slice_that_does_not_exist_is_refused(scene: Scene) -> None:
    with pytest.raises(ProgramFailed, match=r"--set-timeslice 7.*status 2.*Invalid value 7"):
        scene.smi.set_time_slice(scene.gpus[0], 7)


def test_a_gpu_that_the_driver_does_not_have_is_not_found(scene: Scene) -> None:
    for call in (scene.smi.time_slice, lambda uuid: scene.smi.set_time_slice(uuid, 1)):
        with pytest.raises(NotFound, match=rf"nvidia-smi compute-policy -i {STRANGER}.*No devices"):
            call(STRANGER)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(3, NotSupported), (13, NotSupported), (6, NotFound), (15, GpuLost), (255, ProgramFailed)],
)
def test_the_exit_status_tells_the_kind_of_failure(
    scene: Scene, status: int, kind: type[HardwareError]
) -> None:
    scene.fail(status)
    with pytest.raises(HardwareError) as caught:
        scene.smi.set_time_slice(scene.gpus[0], 1)
    assert type(caught.value) is kind
    assert f"nvidia-smi compute-policy -i {scene.gpus[0]} --set-timeslice 1" in str(caught.value)


def test_a_driver_without_the_program_is_named(scene: Scene) -> None:
    scene.program.unlink()
    with pytest.raises(DriverMissing, match="nvidia-smi not found under driver root"):
        scene.smi.set_time_slice(scene.gpus[0], 1)


def test_what_the_program_wrote_is_in_the_error(program: SmiProgram) -> None:
    program.fail(4, "Unable to set:\n  Insufficient Permissions\n")
    with pytest.raises(ProgramFailed, match=r"status 4: Unable to set: Insufficient Permissions$"):
        driver_smi(program).set_time_slice(GPUS[0], 1)


def test_endless_output_is_cut(program: SmiProgram) -> None:
    program.fail(4, "x" * 100_000)
    with pytest.raises(ProgramFailed) as caught:
        driver_smi(program).set_time_slice(GPUS[0], 1)
    assert len(str(caught.value)) < 1500


def test_a_program_that_hangs_is_stopped_with_its_children(program: SmiProgram) -> None:
    program.hang()
    with pytest.raises(ProgramTimedOut, match=r"did not end within 3 s.*working on it"):
        driver_smi(program, timeout_s=3).set_time_slice(GPUS[0], 1)


def test_programs_that_do_not_even_die_do_not_pile_up(program: SmiProgram) -> None:
    spared: list[int] = []
    smi = driver_smi(program, timeout_s=5.0, kill=lambda group, _: spared.append(group))
    program.hang()
    for _ in range(3):
        with pytest.raises(ProgramTimedOut):
            smi.set_time_slice(GPUS[0], 1)
    with pytest.raises(ProgramTimedOut, match=rf"process {spared[0]}.*does not even die"):
        smi.time_slice(GPUS[0])
    with pytest.raises(ProgramTimedOut, match="working on it"):
        smi.time_slice(GPUS[1])
    assert len(spared) == 2
    program.path.with_name("hang").unlink()
    for group in spared:
        os.killpg(group, signal.SIGKILL)
        os.waitid(os.P_PID, group, os.WEXITED | os.WNOWAIT)
    assert [smi.time_slice(gpu) for gpu in GPUS] == [0, 0]


def test_a_program_that_cannot_be_started_is_named(program: SmiProgram) -> None:
    program.path.chmod(0o644)
    with pytest.raises(HardwareError, match=r"cannot start .*/usr/bin/nvidia-smi: Permission"):
        driver_smi(program).time_slice(GPUS[0])


def test_the_drivers_own_library_is_preloaded(
    program: SmiProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = program.driver_root / "usr/lib64/libnvidia-ml.so.1"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setenv("LD_PRELOAD", "/lib/other.so")
    driver_smi(program).time_slice(GPUS[0])
    assert program.preloaded == f"{library}:/lib/other.so"


@pytest.mark.parametrize(
    ("text", "slice_"),
    [
        ("|   0    Timeslice      Long    |", 3),
        ("Time-Slice : SHORT", 1),
        ("timeslice=2", 2),
        ("Timeslice   Enormous", None),
        ("Timeslice   9", None),
        ("", None),
    ],
)
def test_a_list_that_is_not_understood_tells_nothing(text: str, slice_: int | None) -> None:
    assert listed_time_slice(text) == slice_
