"""Making a node look as if it had GPUs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from nvdra_kube.errors import ApiError
from nvdra_kube.resources import NODES
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.hardware import SimulatedHardware
from nvdra_sim.hardware.errors import SimulationError, UnknownProfile
from nvdra_sim.hardware.profile import Majors
from nvdra_sim.node import DeviceFiles, LabelNames, Wish, free_majors, furnish, wish_for
from nvdra_sim.node.program import Settings, furnished_node
from nvdra_testing.kube_server import a_node

LABELS = LabelNames(profile="p", mig_layout="m")
LAYOUTS = """
version: v1
mig-configs:
  cut: [{devices: [0], mig-enabled: true, mig-devices: {"3g.40gb": 2}}]
  other: [{devices: all, mig-enabled: false}]
"""
NO_DRIVER = "Character devices:\n  1 mem\n180 usb\n\nBlock devices:\n121 sd\n"


def settings(directory: Path, **environ: str) -> Settings:
    given = {"NODE_NAME": "n", "SIMULATION_DIRECTORY": str(directory), "SIMULATION_PROFILE": "t4"}
    return Settings.read({**given, "SIMULATION_PROFILE_LABEL": "p", **environ})


async def cluster(**labels: str) -> LocalApi:
    api = LocalApi(ClusterStore())
    await api.create(NODES, a_node("n", **labels))
    return api


def test_labels_win_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "layouts.yaml"
    wish = wish_for({"p": "t4", "m": "cut"}, LABELS, profile="h100", layouts=file, layout="x")
    assert wish == Wish("t4", tmp_path / "layouts.yaml#cut")
    assert wish_for({}, LABELS, profile="h100", layouts=file) == Wish("h100")


def test_no_profile_at_all_says_which_label() -> None:
    with pytest.raises(SimulationError, match="label the node p=NAME"):
        wish_for({}, LABELS)


def test_a_layout_without_a_file_is_refused() -> None:
    with pytest.raises(SimulationError, match="'cut'"):
        wish_for({"m": "cut"}, LABELS, profile="h100")


def test_the_same_wish_keeps_the_machine(tmp_path: Path) -> None:
    first = furnish(tmp_path / "d", Wish("h100"), node="n")
    first.hardware.lose(0)
    again = furnish(tmp_path / "d", Wish("h100"), node="n")
    assert (first.is_new, again.is_new) == (True, False)
    assert again.hardware.state().gpus[0].lost


def test_another_wish_makes_another_machine(tmp_path: Path) -> None:
    furnish(tmp_path / "d", Wish("h100"), node="n")
    other = furnish(tmp_path / "d", Wish("t4"), node="n")
    assert other.is_new
    assert "T4" in other.hardware.profile.product


def test_only_this_nodes_layout_counts(tmp_path: Path) -> None:
    file = tmp_path / "layouts.yaml"
    file.write_text(LAYOUTS)
    wish = Wish("h100", tmp_path / "layouts.yaml#cut")
    first = furnish(tmp_path / "d", wish, node="n")
    assert len(first.hardware.state().gpus[0].instances) == 2
    file.write_text(LAYOUTS.replace("devices: all", "devices: [1]"))
    assert not furnish(tmp_path / "d", wish, node="n").is_new


def test_an_unfinished_machine_is_made_anew(tmp_path: Path) -> None:
    furnish(tmp_path / "d", Wish("h100"), node="n")
    (tmp_path / "d" / "wish").unlink()
    assert furnish(tmp_path / "d", Wish("h100"), node="n").is_new


def test_the_real_hook_replaces_the_stand_in(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\n# real\n")
    hook.chmod(0o755)
    machine = furnish(tmp_path / "d", Wish("t4"), node="n", hook=hook).hardware.machine
    installed = Path(machine.cdi_hook.host_path())
    assert installed.read_text() == hook.read_text()
    assert os.access(installed, os.X_OK)


async def test_the_nodes_label_chooses_its_hardware(tmp_path: Path) -> None:
    hardware = await furnished_node(await cluster(p="l40s"), settings(tmp_path / "d"))
    assert hardware.profile.name == "l40s"


async def test_without_a_label_it_is_the_default(tmp_path: Path) -> None:
    hardware = await furnished_node(await cluster(), settings(tmp_path / "d"))
    assert hardware.profile.name == "t4"


async def test_a_wrong_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownProfile, match="'h9000'"):
        await furnished_node(await cluster(p="h9000"), settings(tmp_path / "d"))


async def test_while_the_api_is_away_the_hardware_stays(tmp_path: Path) -> None:
    empty = LocalApi(ClusterStore())
    with pytest.raises(ApiError):
        await furnished_node(empty, settings(tmp_path / "d"))
    await furnished_node(await cluster(p="l40s"), settings(tmp_path / "d"))
    with capture_logs() as logs:
        hardware = await furnished_node(empty, settings(tmp_path / "d"))
    assert hardware.profile.name == "l40s"
    assert logs[0]["event"].startswith("cannot read the node's labels")


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(SimulationError, match="NODE_NAME"):
        Settings.read({})


class Host:
    """A /dev of plain files that play device nodes, and a /proc."""

    def __init__(self, root: Path, *, devices: str = NO_DRIVER) -> None:
        self.dev, self.proc = root / "dev", root / "proc"
        for directory in (self.dev, self.proc):
            directory.mkdir()
        (self.proc / "devices").write_text(devices)
        self.made: dict[str, tuple[int, int]] = {}
        self.files = DeviceFiles(self.dev, procfs=self.proc, make=self._make)

    def _make(self, path: Path, mode: int, device: int) -> None:
        assert stat.S_ISCHR(mode)
        path.touch()
        self.made[str(path.relative_to(self.dev))] = (os.major(device), os.minor(device))


def test_device_nodes_are_made_for_gpus_and_mig_but_not_for_displays(tmp_path: Path) -> None:
    layouts = tmp_path / "layouts.yaml"
    layouts.write_text(LAYOUTS)
    wish = Wish("h100", tmp_path / "layouts.yaml#cut")
    hardware = furnish(tmp_path / "d", wish, node="n").hardware
    host = Host(tmp_path)
    assert host.files.make(hardware) == len(host.made)
    assert host.made["nvidia0"] == (195, 0)
    assert host.made["nvidiactl"] == (195, 255)
    assert not [name for name in host.made if "dri" in name]
    # config, monitor, and for each of two MIG devices one of its GPU and compute instance.
    assert len([name for name in host.made if "nvidia-cap" in name]) == 6


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    hardware = furnish(tmp_path / "d", Wish("t4"), node="n").hardware
    host = Host(tmp_path)
    (host.dev / "nvidia0").write_text("somebody's file")
    with capture_logs() as logs:
        host.files.make(hardware)
    assert "nvidia0" not in host.made
    assert logs[0]["path"].endswith("/nvidia0")


@pytest.mark.parametrize("name", ["nvidia-frontend", "nvidia"])
def test_nothing_is_simulated_over_a_real_driver(tmp_path: Path, name: str) -> None:
    host = Host(tmp_path, devices=NO_DRIVER.replace("180 usb", f"195 {name}"))
    with pytest.raises(SimulationError, match="real NVIDIA driver"):
        host.files.majors()


def test_no_device_has_the_number_of_a_real_driver(tmp_path: Path) -> None:
    drivers = "120 mei\n226 drm\n236 watchdog"
    host = Host(tmp_path, devices=NO_DRIVER.replace("180 usb", drivers))
    chosen = host.files.majors().by_driver()
    assert chosen["nvidia"] == 195  # nobody else's
    assert not {120, 226, 236} & set(chosen.values())
    assert len(set(chosen.values())) == len(chosen)


@given(taken=st.sets(st.integers(1, 254), max_size=200))
def test_chosen_numbers_are_free_and_different_or_it_is_refused(taken: set[int]) -> None:
    drivers = dict.fromkeys(taken, "other")
    try:
        chosen = list(free_majors(drivers).by_driver().values())
    except SimulationError:
        assert len(taken) > 7
    else:
        assert len(set(chosen)) == len(chosen)
        assert not taken & set(chosen)


def test_too_few_free_numbers_are_told_with_who_has_them() -> None:
    taken = dict.fromkeys([*range(60, 64), *range(120, 127)], "mine")
    with pytest.raises(SimulationError, match=r"120 mine, .*keep the simulation off this node"):
        free_majors(taken)


def test_containers_get_the_devices_under_the_chosen_numbers(tmp_path: Path) -> None:
    layouts = tmp_path / "layouts.yaml"
    layouts.write_text(LAYOUTS)
    host = Host(tmp_path, devices=NO_DRIVER.replace("180 usb", "195 other\n237 mei"))
    wish, majors = Wish("h100", tmp_path / "layouts.yaml#cut"), host.files.majors()
    hardware = furnish(tmp_path / "d", wish, node="n", majors=majors).hardware
    host.files.make(hardware)
    seen = SimulatedHardware.attach(hardware.directory)  # as the agent does
    nodes, (mig, _) = seen.machine.device_nodes, seen.mig_devices(0)
    paths = ["/dev/nvidia1", "/dev/nvidia-uvm", "/dev/nvidiactl"]
    found = [node for path in paths if (node := nodes.stat(path))]
    found += nodes.mig_caps(0, mig.gi_id, mig.ci_id)
    assert len(found) == 5
    for node in found:
        assert host.made[node.path.removeprefix("/dev/")] == (node.major, node.minor)
        assert node.major not in (195, 237)
    assert (card := nodes.stat("/dev/dri/card1"))
    assert card.major == majors.drm != 226


def test_other_numbers_make_another_machine(tmp_path: Path) -> None:
    furnish(tmp_path / "d", Wish("t4"), node="n", majors=free_majors({}))
    assert not furnish(tmp_path / "d", Wish("t4"), node="n", majors=free_majors({})).is_new
    assert furnish(tmp_path / "d", Wish("t4"), node="n", majors=free_majors({120: "mei"})).is_new


@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes are made by root only")
def test_real_device_nodes_come_and_go_with_the_hardware(tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    dev.mkdir()
    files = DeviceFiles(dev, procfs=Path("/proc"))
    many = furnish(tmp_path / "d", Wish("h100"), node="n").hardware
    try:
        files.make(many)
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    found = (dev / "nvidia7").stat()
    assert stat.S_ISCHR(found.st_mode)
    assert (found.st_rdev, stat.S_IMODE(found.st_mode)) == (os.makedev(195, 7), 0o666)
    assert files.make(many) == 0
    other = furnish(tmp_path / "d", Wish("t4"), node="n", majors=Majors(nvidia=121)).hardware
    files.make(other)
    assert not (dev / "nvidia7").exists()
    assert os.major((dev / "nvidia0").stat().st_rdev) == 121
