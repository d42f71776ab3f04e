"""The program that CDI hooks name, and the wiring of a real machine."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.cdi_hook import CopiedHook, HostHook
from nvdra_nodeagent.hardware.errors import DriverMissing, HookMissing
from nvdra_nodeagent.hardware.real import real_machine

if TYPE_CHECKING:
    from nvdra_nodeagent.hardware.ports import Machine


def a_program(path: Path, content: bytes = b"#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def copied(tmp_path: Path, **options: Path) -> CopiedHook:
    return CopiedHook(tmp_path / "image/hook", plugin_dir=tmp_path / "plugin", **options)


def test_the_images_hook_is_copied_where_the_host_can_run_it(tmp_path: Path) -> None:
    a_program(tmp_path / "image/hook", b"\x7fELF" * 5000)
    path = Path(copied(tmp_path).host_path())
    assert path == tmp_path / "plugin/nvidia-cdi-hook"
    assert path.read_bytes() == b"\x7fELF" * 5000
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert [entry.name for entry in path.parent.iterdir()] == ["nvidia-cdi-hook"]


def test_the_host_may_know_the_plugin_directory_by_another_path(tmp_path: Path) -> None:
    a_program(tmp_path / "image/hook")
    hook = copied(tmp_path, host_plugin_dir=Path("/var/lib/kubelet/plugins/gpu"))
    assert hook.host_path() == "/var/lib/kubelet/plugins/gpu/nvidia-cdi-hook"
    assert (tmp_path / "plugin/nvidia-cdi-hook").is_file()


def test_an_equal_copy_is_left_in_place(tmp_path: Path) -> None:
    a_program(tmp_path / "image/hook")
    inode = Path(copied(tmp_path).host_path()).stat().st_ino
    assert Path(copied(tmp_path).host_path()).stat().st_ino == inode


def test_a_new_image_replaces_the_copy(tmp_path: Path) -> None:
    a_program(tmp_path / "image/hook", b"old")
    copied(tmp_path).host_path()
    a_program(tmp_path / "image/hook", b"new")
    assert Path(copied(tmp_path).host_path()).read_bytes() == b"new"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.chmod(0o644)])
def test_a_copy_that_was_lost_is_made_again(tmp_path: Path, damage: object) -> None:
    a_program(tmp_path / "image/hook")
    hook = copied(tmp_path)
    path = Path(hook.host_path())
    assert callable(damage)
    damage(path)
    assert os.access(hook.host_path(), os.X_OK)


def test_many_threads_get_one_copy(tmp_path: Path) -> None:
    a_program(tmp_path / "image/hook")
    hook = copied(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: hook.host_path(), range(32)))
    assert found == {str(tmp_path / "plugin/nvidia-cdi-hook")}


def test_a_hook_that_the_image_lacks_is_named_with_both_paths(tmp_path: Path) -> None:
    with pytest.raises(HookMissing) as caught:
        copied(tmp_path).host_path()
    message = str(caught.value)
    assert str(tmp_path / "plugin/nvidia-cdi-hook") in message
    assert str(tmp_path / "image/hook") in message
    assert "--nvidia-cdi-hook-path" in message
    assert isinstance(caught.value, DriverMissing)


def test_a_plugin_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    a_program(tmp_path / "image/hook")
    (tmp_path / "plugin").write_text("a file is in the way")
    with pytest.raises(HookMissing, match="plugin"):
        copied(tmp_path).host_path()


def test_a_hook_on_the_host_is_named_as_given() -> None:
    assert HostHook("/usr/bin/nvidia-ctk").host_path() == "/usr/bin/nvidia-ctk"


def test_a_hook_on_the_host_is_checked_where_the_host_is_visible(tmp_path: Path) -> None:
    hook = HostHook("/opt/hook", host_root=tmp_path)
    with pytest.raises(HookMissing, match="/opt/hook"):
        hook.host_path()
    a_program(tmp_path / "opt/hook")
    assert hook.host_path() == "/opt/hook"


def test_links_to_a_hook_are_followed_as_the_host_would(tmp_path: Path) -> None:
    a_program(tmp_path / "store/hook-1.2")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/hook").symlink_to("/store/hook-1.2")
    assert HostHook("/bin/hook", host_root=tmp_path).host_path() == "/bin/hook"


def a_real_machine(
    tmp_path: Path,
    *,
    hook_path: str = "",
    host_driver_root: str = "/run/nvidia/driver",
    procfs: Path = Path("/proc"),
) -> Machine:
    return real_machine(
        driver_root=tmp_path / "driver-root",
        host_driver_root=Path(host_driver_root),
        sysfs=Path("/sys"),
        procfs=procfs,
        plugin_dir=tmp_path / "plugin",
        hook_source=tmp_path / "image/hook",
        hook_path=hook_path,
    )


def test_a_machine_without_a_driver_says_so_when_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(DriverMissing, match="driver-root"):
        a_real_machine(tmp_path).nvml.init()


def test_devices_are_those_of_the_driver_root_where_it_has_some(tmp_path: Path) -> None:
    nodes = a_real_machine(tmp_path).device_nodes
    node = nodes.stat("/dev/null")
    assert node is not None
    assert node.host_path == "/dev/null"
    (tmp_path / "driver-root/dev").mkdir(parents=True)  # a driver container that came later
    assert nodes.stat("/dev/null") is None


def test_capabilities_of_imex_are_where_the_host_has_its_devices(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    capability = proc / "driver/nvidia/capabilities/fabric-imex-mgmt"
    capability.parent.mkdir(parents=True)
    capability.write_text("DeviceFileMinor: 7\nDeviceFileMode: 256\n")
    (proc / "devices").write_text("Character devices:\n236 nvidia-caps\n")
    machine = a_real_machine(tmp_path, procfs=proc)
    assert machine.imex_nodes.management().host_path == "/dev/nvidia-caps/nvidia-cap7"
    (tmp_path / "driver-root/dev").mkdir(parents=True)
    host_path = machine.imex_nodes.management().host_path
    assert host_path == "/run/nvidia/driver/dev/nvidia-caps/nvidia-cap7"


def test_a_driver_root_that_is_the_whole_host_shows_whether_the_hook_is_there(
    tmp_path: Path,
) -> None:
    machine = a_real_machine(tmp_path, hook_path="/opt/hook", host_driver_root="/")
    with pytest.raises(HookMissing, match="/opt/hook"):
        machine.cdi_hook.host_path()
    a_program(tmp_path / "driver-root/opt/hook")
    assert machine.cdi_hook.host_path() == "/opt/hook"


def test_a_hook_that_is_named_is_not_copied(tmp_path: Path) -> None:
    machine = a_real_machine(tmp_path, hook_path="/usr/bin/nvidia-ctk")
    assert machine.cdi_hook.host_path() == "/usr/bin/nvidia-ctk"
    assert not (tmp_path / "plugin").exists()
