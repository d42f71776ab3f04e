"""The nvidia-smi stand-in, in a namespace that holds nothing but device nodes."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from nvdra_sim.hardware import profile_names
from nvdra_testing.simulated import nvidia_smi, simulated

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_sim.hardware import SimulatedHardware

SHELLS = [s for s in ("sh", "dash", "bash", "busybox sh") if shutil.which(s.split()[0])]


def dev_with(tmp_path: Path, *names: str) -> Path:
    """A /dev that holds these nodes."""
    dev = tmp_path / "dev"
    for name in names:
        (dev / name).parent.mkdir(parents=True, exist_ok=True)
        (dev / name).touch()
    return dev


def caps(hardware: SimulatedHardware, *, number: int) -> tuple[str, ...]:
    """Capability nodes of one of GPU 0's MIG devices."""
    handle = hardware.mig_devices(0)[number]
    found = hardware.machine.device_nodes.mig_caps(0, handle.gi_id, handle.ci_id)
    return tuple(cap.path.removeprefix("/dev/") for cap in found)


@pytest.mark.namespaces
@pytest.mark.parametrize("profile", profile_names())
def test_on_the_node_it_lists_the_uuids_of_the_inventory(tmp_path: Path, profile: str) -> None:
    hardware = simulated(tmp_path, profile)
    run = nvidia_smi(hardware, "-L", dev=hardware.directory / "driver-root/dev")
    product = hardware.profile.product
    assert run.stdout.splitlines() == [
        f"GPU {index}: {product} (UUID: {hardware.gpu_uuid(index)})"
        for index in range(len(hardware.profile.gpus))
    ]
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.namespaces
@pytest.mark.parametrize("shell", SHELLS)
def test_in_a_container_it_sees_what_the_container_was_given(tmp_path: Path, shell: str) -> None:
    hardware = simulated(tmp_path)
    dev = dev_with(tmp_path, "nvidiactl", "nvidia2", "nvidia5")
    assert nvidia_smi(hardware, "-L", dev=dev, shell=shell).stdout == (
        f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {hardware.gpu_uuid(2)})\n"
        f"GPU 1: NVIDIA H100 80GB HBM3 (UUID: {hardware.gpu_uuid(5)})\n"
    )


@pytest.mark.namespaces
def test_device_nodes_that_are_not_in_pci_order_name_the_right_gpus(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, "a100-40gb")
    dev = dev_with(tmp_path, "nvidiactl", "nvidia0", "nvidia2")
    listed = nvidia_smi(hardware, "-L", dev=dev).stdout.splitlines()
    assert [hardware.gpu_uuid(0) in listed[0], hardware.gpu_uuid(2) in listed[1]] == [True, True]


@pytest.mark.namespaces
@pytest.mark.parametrize("shell", SHELLS)
def test_a_mig_device_is_a_second_line(tmp_path: Path, shell: str) -> None:
    hardware = simulated(tmp_path, mig=["1g.10gb+me", "1g.10gb", "3g.40gb"])
    dev = dev_with(tmp_path, "nvidiactl", "nvidia0", *caps(hardware, number=1))
    handle = hardware.mig_devices(0)[1]
    assert nvidia_smi(hardware, "-L", dev=dev, shell=shell).stdout == (
        f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {hardware.gpu_uuid(0)})\n"
        f"  MIG 1g.10gb     Device  0: (UUID: {handle.uuid})\n"
    )


@pytest.mark.namespaces
@pytest.mark.parametrize("profile", ["a30", "a100-40gb", "h100", "gb300", "rtx-pro-6000"])
def test_every_kind_of_mig_device_is_listed_under_its_name_and_uuid(
    tmp_path: Path, profile: str
) -> None:
    hardware = simulated(tmp_path, profile)
    hardware.set_mig_mode(0, enabled=True)
    hardware.reset(0)
    assert hardware.profile.mig is not None
    for kind in hardware.profile.mig.profiles:
        handle = hardware.create_mig(0, kind.name)
        run = nvidia_smi(hardware, "-L", dev=hardware.directory / "driver-root/dev")
        line = f"  MIG {kind.name:<11} Device  0: (UUID: {handle.uuid})"
        assert run.stdout.splitlines()[1] == line
        hardware.destroy_mig(0, handle.gi_id)


@pytest.mark.namespaces
def test_half_of_the_capabilities_is_no_mig_device(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, mig=["1g.10gb"])
    dev = dev_with(tmp_path, "nvidiactl", "nvidia0", caps(hardware, number=0)[0])
    assert "MIG" not in nvidia_smi(hardware, "-L", dev=dev).stdout


@pytest.mark.namespaces
def test_without_gpu_nodes_there_are_no_devices(tmp_path: Path) -> None:
    run = nvidia_smi(simulated(tmp_path), "-L", dev=dev_with(tmp_path, "nvidiactl"))
    assert (run.returncode, run.stdout) == (6, "No devices were found\n")


@pytest.mark.namespaces
def test_without_the_control_node_the_driver_does_not_answer(tmp_path: Path) -> None:
    run = nvidia_smi(simulated(tmp_path), dev=dev_with(tmp_path, "nvidia0"))
    assert run.returncode == 9
    assert run.stdout.startswith("NVIDIA-SMI has failed because it couldn't communicate with")


@pytest.mark.namespaces
def test_the_summary_is_a_straight_table(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, mig=["3g.40gb", "1g.10gb"])
    run = nvidia_smi(hardware, dev=hardware.directory / "driver-root/dev")
    lines = [line for line in run.stdout.splitlines() if line]
    assert {len(line) for line in lines} == {91}
    assert "Driver Version: 580.95.05" in lines[1]
    assert sum("NVIDIA H100 80GB HBM3" in line for line in lines) == 8
    assert "| MIG devices:" in run.stdout
    assert "40448MiB" in run.stdout


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("csv", "index, name, memory.total [MiB], driver_version\n0, {}, 81559 MiB, 580.95.05\n"),
        ("csv,noheader", "0, {}, 81559 MiB, 580.95.05\n"),
        ("csv,noheader,nounits", "0, {}, 81559, 580.95.05\n"),
    ],
)
def test_queries_answer_as_csv(tmp_path: Path, form: str, expected: str) -> None:
    dev = dev_with(tmp_path, "nvidiactl", "nvidia4")
    query = "--query-gpu=index,name,memory.total,driver_version"
    run = nvidia_smi(simulated(tmp_path), query, f"--format={form}", dev=dev)
    assert run.stdout == expected.format("NVIDIA H100 80GB HBM3")


@pytest.mark.namespaces
def test_one_gpu_is_chosen_by_index_uuid_or_address(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    dev = dev_with(tmp_path, "nvidiactl", "nvidia1", "nvidia3")
    query = ("--query-gpu=uuid", "--format=csv,noheader")
    wanted = hardware.gpu_uuid(3)
    for target in ("1", wanted, "00000000:61:00.0"):
        assert nvidia_smi(hardware, "-i", target, *query, dev=dev).stdout == f"{wanted}\n"
    assert nvidia_smi(hardware, "-i", "2", *query, dev=dev).returncode == 6


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--no-such-option"], "Invalid combination of input arguments."),
        (["-i"], "Invalid combination of input arguments."),
        (["--query-gpu=name"], '"--format=" switch is missing.'),
        (["--query-gpu=shoe_size", "--format=csv"], 'Field "shoe_size" is not a valid field'),
    ],
)
def test_wrong_options_end_with_code_two(tmp_path: Path, arguments: list[str], said: str) -> None:
    dev = dev_with(tmp_path, "nvidiactl", "nvidia0")
    run = nvidia_smi(simulated(tmp_path), *arguments, dev=dev)
    assert (run.returncode, run.stdout.startswith(said)) == (2, True)


@pytest.mark.namespaces
def test_versions_are_printed_without_any_device(tmp_path: Path) -> None:
    run = nvidia_smi(simulated(tmp_path), "--version", dev=dev_with(tmp_path, "null"))
    assert "DRIVER version      : 580.95.05\nCUDA Version        : 13.0\n" in run.stdout


def test_it_runs_without_any_other_program(tmp_path: Path) -> None:
    script = simulated(tmp_path).machine.driver_root.binary("nvidia-smi")
    run = subprocess.run(
        ["/bin/sh", str(script), "--version"], env={"PATH": ""}, capture_output=True, check=True
    )
    assert run.stderr == b""
