"""The laid out files are what the real adapters expect, and are never laid over anything else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.device_nodes import HostDeviceNodes
from nvdra_nodeagent.hardware.driver_root import resolve
from nvdra_nodeagent.hardware.errors import HardwareError, HookMissing
from nvdra_nodeagent.hardware.pci import SysfsPci
from nvdra_sim.hardware import SimulatedHardware, UnknownProfile, UnusableStateDir
from nvdra_testing.simulated import simulated

if TYPE_CHECKING:
    from pathlib import Path


def test_gpu_nodes_have_the_numbers_of_real_ones(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    node = hardware.machine.device_nodes.stat("/dev/nvidia3")
    assert node is not None
    assert (node.major, node.minor, node.mode, node.gid) == (195, 3, 0o666, 0)
    assert node.host_path == str(hardware.directory / "driver-root/dev/nvidia3")


@pytest.mark.parametrize(
    "path",
    ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"],
)
def test_control_nodes_are_there(tmp_path: Path, path: str) -> None:
    assert simulated(tmp_path).machine.device_nodes.stat(path) is not None


def test_a_removed_node_is_not_there(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    (hardware.directory / "driver-root/dev/nvidia0").unlink()
    assert hardware.machine.device_nodes.stat("/dev/nvidia0") is None
    assert hardware.machine.device_nodes.stat("/dev/null") is None


def test_mig_capabilities_appear_and_vanish_with_the_device(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, mig=["1g.10gb"])
    (handle,) = hardware.mig_devices(0)
    nodes = hardware.machine.device_nodes
    caps = nodes.mig_caps(0, handle.gi_id, handle.ci_id)
    assert [cap.path for cap in caps] == [
        "/dev/nvidia-caps/nvidia-cap120",
        "/dev/nvidia-caps/nvidia-cap121",
    ]
    assert [nodes.stat(cap.path) for cap in caps] == list(caps)
    hardware.destroy_mig(0, handle.gi_id)
    assert [nodes.stat(cap.path) for cap in caps] == [None, None]
    with pytest.raises(HardwareError, match="access"):
        nodes.mig_caps(0, handle.gi_id, handle.ci_id)


def test_the_capability_table_agrees_with_the_nodes(tmp_path: Path) -> None:
    hardware = simulated(tmp_path, mig=["1g.10gb"])
    table = (hardware.directory / "proc/driver/nvidia-caps/mig-minors").read_text().splitlines()
    assert "gpu0/gi13/access 120" in table
    assert "gpu0/gi13/ci0/access 121" in table
    real = HostDeviceNodes(
        hardware.directory / "driver-root",
        host_dev_root=hardware.directory,
        procfs=hardware.directory / "proc",
    )
    assert [cap.minor for cap in real.mig_caps(0, 13, 0)] == [120, 121]


def test_pci_functions_are_found_by_the_real_adapter(tmp_path: Path) -> None:
    pci = SysfsPci(simulated(tmp_path, "a100-40gb").directory / "sys")
    assert pci.root_complex("0000:0f:00.0") == "pci0000:00"
    assert pci.numa_node("0000:0f:00.0") == 3
    assert pci.drm_nodes("0000:0f:00.0") == ("card2", "renderD129")


def test_drm_nodes_have_links_by_path(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    link = hardware.directory / "driver-root/dev/dri/by-path/pci-0000:1b:00.0-render"
    assert link.resolve().name == "renderD128"
    node = hardware.machine.device_nodes.stat("/dev/dri/renderD128")
    assert node is not None
    assert (node.major, node.minor) == (226, 128)


@pytest.mark.parametrize(("profile", "machine"), [("h100", "x86_64"), ("gb200", "aarch64")])
def test_the_driver_root_holds_libraries_for_its_processor(
    tmp_path: Path, profile: str, machine: str
) -> None:
    hardware = simulated(tmp_path, profile)
    libcuda = hardware.machine.driver_root.library("libcuda.so.1")
    version = hardware.profile.driver_version
    assert libcuda.parent.name == f"{machine}-linux-gnu"
    assert libcuda.name == f"libcuda.so.{version}"
    assert len(list(libcuda.parent.glob(f"*.so.{version}"))) > 20
    root = hardware.machine.driver_root.container_path
    assert resolve(root, f"/lib/firmware/nvidia/{version}/gsp_ga10x.bin") is not None


def test_programs_and_the_hook_can_be_run_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        machine = simulated(tmp_path).machine
    finally:
        os.umask(before)
    hook = tmp_path / "hardware/bin/nvidia-cdi-hook"
    assert machine.cdi_hook.host_path() == str(hook)
    for program in (hook, machine.driver_root.binary("nvidia-smi")):
        assert program.stat().st_mode & 0o777 == 0o755


def test_a_missing_hook_is_named(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    (hardware.directory / "bin/nvidia-cdi-hook").unlink()
    with pytest.raises(HookMissing, match="nvidia-cdi-hook"):
        hardware.machine.cdi_hook.host_path()


def test_a_machine_is_opened_again_with_its_state(tmp_path: Path) -> None:
    first = simulated(tmp_path, mig=["1g.10gb"])
    again = SimulatedHardware.open("h100", first.directory)
    assert again.mig_devices(0) == first.mig_devices(0)
    assert SimulatedHardware.attach(first.directory).profile.name == "h100"


@pytest.mark.parametrize(
    ("profile", "node", "problem"),
    [("a30", "node-a", r"profile 'h100'.*'a30'"), ("h100", "node-b", "node 'node-a'.*'node-b'")],
)
def test_another_machine_in_the_directory_is_refused(
    tmp_path: Path, profile: str, node: str, problem: str
) -> None:
    simulated(tmp_path)
    with pytest.raises(UnusableStateDir, match=problem):
        simulated(tmp_path, profile, node=node)


def test_another_layout_for_the_same_machine_is_refused(tmp_path: Path) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text("version: v1\nmig-configs:\n  a: [{devices: all, mig-enabled: true}]\n")
    made = SimulatedHardware.open("h100", tmp_path / "cut", mig_layout=layout)
    assert all(gpu.mig_enabled for gpu in made.state().gpus)
    SimulatedHardware.open("h100", tmp_path / "cut", mig_layout=layout)
    simulated(tmp_path)
    with pytest.raises(UnusableStateDir, match=r"MIG layout 'none'"):
        SimulatedHardware.open("h100", tmp_path / "hardware", mig_layout=layout)


def test_foreign_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UnusableStateDir, match=r"other content \(thesis.tex"):
        SimulatedHardware.open("h100", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("place", ["/dev/gpus", "/proc/gpus", "/sys/gpus"])
def test_the_kernels_directories_are_refused(tmp_path: Path, place: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(place)
    with pytest.raises(UnusableStateDir, match="belongs to the kernel"):
        SimulatedHardware.open("h100", link)


def test_nothing_is_laid_over_what_is_no_plain_file(tmp_path: Path) -> None:
    # A pipe stands in for a device, which tests may not make.
    hardware = simulated(tmp_path)
    (hardware.directory / "hardware.json").unlink()
    device = hardware.directory / "driver-root/dev/nvidia0"
    device.unlink()
    os.mkfifo(device)
    with pytest.raises(UnusableStateDir, match=r"dev/nvidia0 is a real device"):
        simulated(tmp_path)
    assert device.is_fifo()


def test_a_machine_whose_making_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    (hardware.directory / "hardware.json").unlink()
    (hardware.directory / "driver-root/usr/bin/nvidia-smi").write_text("half a scr")
    assert simulated(tmp_path).machine.driver_root.binary("nvidia-smi").stat().st_size > 1000


def test_a_damaged_state_file_says_what_to_do(tmp_path: Path) -> None:
    hardware = simulated(tmp_path)
    (hardware.directory / "hardware.json").write_text("{")
    with pytest.raises(UnusableStateDir, match=r"hardware.json cannot be read.*start anew"):
        hardware.state()


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableStateDir, match="file/below"):
        SimulatedHardware.open("h100", tmp_path / "file/below")


def test_an_unknown_profile_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnknownProfile):
        SimulatedHardware.open("h1000", tmp_path / "new")
    assert not (tmp_path / "new").exists()
