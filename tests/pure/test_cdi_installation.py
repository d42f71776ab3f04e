"""Documents while the driver is being replaced: the old one, or none, but never half of one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.cdi.builder import CdiBuilder
from nvdra_nodeagent.cdi.driver_files import DriverFile, DriverFiles
from nvdra_nodeagent.cdi.installation import Installation
from nvdra_nodeagent.errors import NodeFault, Retryable
from nvdra_testing.simulated import simulated

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_sim.hardware import SimulatedHardware

NEWER = "599.1.2"


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Node:
    hardware: SimulatedHardware
    version: str = ""
    builder: CdiBuilder = field(init=False)

    def __post_init__(self) -> None:
        self.version = self.hardware.profile.driver_version
        machine = self.hardware.machine
        self.builder = CdiBuilder(machine, driver_version=lambda: self.version)

    def load(self, version: str) -> None:
        self.hardware.driver.load(version)
        self.version = version


@pytest.fixture
def node(tmp_path: Path) -> Node:
    hardware = simulated(tmp_path, "h100")
    for path in (hardware.directory / "driver-root").rglob("*"):
        if path.is_dir() and not path.is_symlink():
            os.utime(path, (1, 1))  # time stamps of directories are coarse
    return Node(hardware)


def test_the_basis_stays_while_nothing_changes(node: Node) -> None:
    assert node.builder.basis() == node.builder.basis()


def test_another_driver_is_another_basis(node: Node) -> None:
    before = node.builder.basis()
    node.hardware.driver.upgrade(NEWER)
    node.load(NEWER)
    assert node.builder.basis() != before


def test_a_library_that_is_added_is_another_basis(node: Node) -> None:
    before = node.builder.basis()
    libraries = node.hardware.directory / "driver-root/usr/lib/x86_64-linux-gnu"
    (libraries / f"libnvidia-new.so.{node.version}").write_text("")
    assert node.builder.basis() != before


def test_without_the_drivers_libraries_there_is_no_basis(node: Node) -> None:
    node.builder.basis()
    node.hardware.driver.uninstall()
    with pytest.raises(NodeFault):
        node.builder.basis()


def test_a_driver_that_is_half_there_is_waited_for(node: Node) -> None:
    node.builder.basis()
    node.hardware.driver.uninstall()
    node.hardware.driver.install(NEWER, only=["libcuda.so", "libnvidia-ml.so"])
    node.version = NEWER
    with pytest.raises(Retryable, match="being replaced") as refusal:
        node.builder.basis()
    assert refusal.value.reason == "DriverChanging"
    node.hardware.driver.install(NEWER)
    assert node.builder.basis()


def files(*names: str, state: int = 0) -> DriverFiles:
    libraries = tuple(DriverFile(f"/usr/lib64/{name}", f"/usr/lib64/{name}") for name in names)
    searched = (("/usr/lib64", (1, 2, state)),)
    return DriverFiles(
        libcuda_dir="/usr/lib64",
        libraries=libraries,
        others=(),
        sockets=(),
        links=(),
        searched=searched,
    )


OLD = files("libcuda.so.1.1", "libnvidia-fbc.so.1.1")


def test_a_driver_with_fewer_libraries_is_taken_once_its_files_rest() -> None:
    clock = Clock()
    installation = Installation(settled_s=10.0, clock=clock)
    new = files("libcuda.so.2.2", state=1)
    with pytest.raises(Retryable, match="libnvidia-fbc"):
        installation.check(new, before=OLD)
    clock.now_s += 10.0
    installation.check(new, before=OLD)


def test_another_thread_that_finds_all_files_meanwhile_disturbs_nobody() -> None:
    def clock() -> float:
        installation.check(OLD, before=OLD)
        return 100.0

    installation = Installation(settled_s=10.0, clock=clock)
    with pytest.raises(Retryable, match="libnvidia-fbc"):
        installation.check(files("libcuda.so.2.2", state=1), before=OLD)


def test_every_change_of_the_files_starts_the_wait_anew() -> None:
    clock = Clock()
    installation = Installation(settled_s=10.0, clock=clock)
    for state in range(5):
        with pytest.raises(Retryable):
            installation.check(files("libcuda.so.2.2", state=state), before=OLD)
        clock.now_s += 9.0


@pytest.mark.parametrize("more", [(), ("libnvidia-more.so.2.2",)])
def test_a_driver_with_all_libraries_of_before_is_taken_at_once(more: tuple[str, ...]) -> None:
    Installation().check(files("libcuda.so.2.2", "libnvidia-fbc.so.2.2", *more), before=OLD)


def test_the_first_driver_is_taken_as_it_is() -> None:
    Installation().check(files("libcuda.so.2.2"), before=None)
