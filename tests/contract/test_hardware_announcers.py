"""What tells of changes of the hardware: files, and the kernel's own messages."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.hardware.driver_module import KernelDriverModule
from nvdra_nodeagent.hardware.file_events import FileAnnouncer
from nvdra_nodeagent.hardware.uevents import UeventAnnouncer, meaning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def announcer(tmp_path: Path) -> Iterator[FileAnnouncer]:
    announcer = FileAnnouncer(tmp_path / "driver" / "root")
    assert announcer.open() is not None
    yield announcer
    announcer.close()


def test_a_driver_root_that_appears_is_told_step_by_step(
    tmp_path: Path, announcer: FileAnnouncer
) -> None:
    root = tmp_path / "driver" / "root"
    told = []
    for part in (root.parent, root, root / "usr", root / "usr/lib64"):
        announcer.arm()
        part.mkdir()
        told.append(announcer.news())
    announcer.arm()
    (root / "usr/lib64/libnvidia-ml.so.1").write_text("")
    assert told == [(f"{name} changed",) for name in ("driver", "root", "usr", "lib64")]
    assert announcer.news() == ("libnvidia-ml.so.1 changed",)


def test_device_nodes_that_come_and_go_are_told(tmp_path: Path, announcer: FileAnnouncer) -> None:
    dev = tmp_path / "driver/root/dev"
    dev.mkdir(parents=True)
    announcer.arm()
    (dev / "nvidia3").write_text("")
    assert announcer.news() == ("nvidia3 changed",)
    (dev / "nvidia3").unlink()
    assert announcer.news() == ("nvidia3 changed",)


def test_other_files_are_nobodys_business(tmp_path: Path, announcer: FileAnnouncer) -> None:
    dev = tmp_path / "driver/root/dev"
    dev.mkdir(parents=True)
    announcer.arm()
    (dev / "ttyS0").write_text("")
    (dev / "pts").mkdir()
    assert announcer.news() == ()


def test_a_file_that_is_replaced_by_a_rename_is_told(tmp_path: Path) -> None:
    announcer = FileAnnouncer(tmp_path, {"/": ("hardware.json",)})
    announcer.open()
    announcer.arm()
    (tmp_path / ".hardware.json.tmp").write_text("{}")
    (tmp_path / ".hardware.json.tmp").rename(tmp_path / "hardware.json")
    assert announcer.news() == ("hardware.json changed",)
    announcer.close()


def test_a_directory_that_went_and_came_back_is_watched_again(
    tmp_path: Path, announcer: FileAnnouncer
) -> None:
    dev = tmp_path / "driver/root/dev"
    dev.mkdir(parents=True)
    announcer.arm()
    dev.rmdir()
    assert announcer.news() == ("a watched directory went",)
    announcer.arm()
    dev.mkdir()
    announcer.arm()
    (dev / "nvidia0").write_text("")
    assert announcer.news()[-1] == "nvidia0 changed"


def test_news_make_the_descriptor_readable(tmp_path: Path) -> None:
    announcer = FileAnnouncer(tmp_path, {"/dev": ("nvidia",)})
    descriptor = announcer.open()
    assert descriptor is not None
    announcer.arm()
    assert select.select([descriptor], [], [], 0)[0] == []
    (tmp_path / "dev").mkdir()
    assert select.select([descriptor], [], [], 0)[0] == [descriptor]
    announcer.close()


def test_a_closed_announcer_says_nothing(announcer: FileAnnouncer) -> None:
    announcer.close()
    announcer.arm()
    assert announcer.news() == ()


def a_uevent(action: str, path: str, **fields: str) -> bytes:
    lines = [f"{action}@{path}", f"ACTION={action}", f"DEVPATH={path}"]
    return "\0".join([*lines, *(f"{name}={value}" for name, value in fields.items()), ""]).encode()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (a_uevent("add", "/module/nvidia", SUBSYSTEM="module"), "add module nvidia"),
        (a_uevent("remove", "/module/nvidia_uvm", SUBSYSTEM="module"), "remove module nvidia_uvm"),
        (a_uevent("add", "/module/nvme", SUBSYSTEM="module"), ""),
        (
            a_uevent(
                "bind", "/devices/pci0000:00/0000:65:00.0", SUBSYSTEM="pci", DRIVER="nvidia"
            ),
            "bind 0000:65:00.0",
        ),
        (
            a_uevent(
                "remove", "/devices/x/0000:65:00.0", SUBSYSTEM="pci", PCI_CLASS="30200",
                PCI_ID="10DE:2330",
            ),
            "remove 0000:65:00.0",
        ),
        (
            a_uevent(
                "add", "/devices/x/0000:01:00.0", SUBSYSTEM="pci", PCI_CLASS="20000",
                PCI_ID="15B3:1021",
            ),
            "",
        ),
        (a_uevent("change", "/devices/x", SUBSYSTEM="power_supply"), ""),
        (b"libudev\0\xfe\xed\xca\xfe", ""),
        (b"\xff\xff", ""),
    ],
)  # fmt: skip
def test_only_messages_about_gpus_and_their_driver_mean_something(
    message: bytes, told: str
) -> None:
    assert meaning(message) == told


def test_listening_to_the_kernel_never_fails_nor_blocks() -> None:
    announcer = UeventAnnouncer()
    announcer.open()
    announcer.arm()
    announcer.news()
    announcer.close()
    assert announcer.news() == ()


def test_a_module_that_is_loaded_anew_has_another_load(tmp_path: Path) -> None:
    module = KernelDriverModule(sysfs=tmp_path, procfs=tmp_path)
    assert module.load() == ""
    (tmp_path / "module/nvidia").mkdir(parents=True)
    first = module.load()
    (tmp_path / "module/nvidia").rename(tmp_path / "module/old")
    (tmp_path / "module/nvidia").mkdir()
    assert first != module.load() != ""


def test_gpus_bound_to_the_driver_are_those_that_procfs_lists(tmp_path: Path) -> None:
    module = KernelDriverModule(sysfs=tmp_path, procfs=tmp_path)
    assert module.gpus() == ()
    for bus_id in ("0000:c1:00.0", "0000:1b:00.0"):
        (tmp_path / "driver/nvidia/gpus" / bus_id).mkdir(parents=True)
    assert module.gpus() == ("0000:1b:00.0", "0000:c1:00.0")


def test_kernel_events_that_end_leave_their_descriptor_to_nobody_else() -> None:
    announcer = UeventAnnouncer()
    descriptor = announcer.open()
    if descriptor is None:
        pytest.skip("no kernel events here")
    with socket.create_server(("127.0.0.1", 0)) as broken:
        broken.setblocking(False)
        os.dup2(broken.fileno(), descriptor)
    assert announcer.news() == ()
    with socket.socket() as other:
        assert other.fileno() != descriptor
    assert select.select([descriptor], [], [], 0) == ([], [], [])
    assert announcer.news() == ()
    announcer.close()
