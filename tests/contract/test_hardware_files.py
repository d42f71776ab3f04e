"""sysfs, procfs and device nodes, as the real adapters read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nvdra_nodeagent.hardware.device_nodes import HostDeviceNodes, character_major
from nvdra_nodeagent.hardware.errors import HardwareError
from nvdra_nodeagent.hardware.pci import SysfsPci, bus_id_order, normalise_bus_id
from nvdra_nodeagent.hardware.ports import DeviceNode

BDF = "0000:65:00.0"
PROC_DEVICES = """Character devices:
  1 mem
195 nvidia
195 nvidia-modeset
235 nvidia-caps-imex-channels
236 nvidia-caps

Block devices:
259 blkext
 99 nvidia-caps
"""


def a_function(sysfs: Path, *, numa: str | None = "1", tail: str = "0000:64:01.0/") -> SysfsPci:
    real = sysfs / f"devices/pci0000:64/{tail}{BDF}"
    real.mkdir(parents=True)
    links = sysfs / "bus/pci/devices"
    links.mkdir(parents=True)
    (links / BDF).symlink_to(f"../../../devices/pci0000:64/{tail}{BDF}")
    if numa is not None:
        (real / "numa_node").write_text(f"{numa}\n")
    return SysfsPci(sysfs)


@pytest.mark.parametrize(
    ("printed", "normal"),
    [
        ("00000000:65:00.0", BDF),
        ("0000:65:00.0", BDF),
        ("00000000:C1:00.0", "0000:c1:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("0009:01:00.0", "0009:01:00.0"),
    ],
)
def test_an_address_is_written_as_sysfs_does(printed: str, normal: str) -> None:
    assert normalise_bus_id(printed) == normal


@pytest.mark.parametrize("text", ["", "65:00.0", "0000:65:00", "0000:65:00.8", "nonsense"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no PCI address"):
        normalise_bus_id(text)


def test_addresses_are_ordered_by_number_across_domains() -> None:
    ordered = ["0000:0a:00.0", "0000:b1:00.0", "0009:01:00.0", "10000:01:00.0"]
    assert sorted(ordered, key=bus_id_order) == ordered


@pytest.mark.parametrize(("text", "node"), [("1", 1), ("0", 0), ("-1", None)])
def test_the_numa_node_is_none_where_the_kernel_says_minus_one(
    tmp_path: Path, text: str, node: int | None
) -> None:
    assert a_function(tmp_path, numa=text).numa_node(BDF) == node


def test_a_kernel_without_numa_has_no_node(tmp_path: Path) -> None:
    assert a_function(tmp_path, numa=None).numa_node(BDF) is None


def test_a_numa_node_that_is_no_number_is_an_error_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=f"{BDF}/numa_node"):
        a_function(tmp_path, numa="many").numa_node(BDF)


@pytest.mark.parametrize("tail", ["", "0000:64:01.0/", "0000:64:01.0/0000:65:00.0/"])
def test_the_root_complex_is_found_behind_any_bridges(tmp_path: Path, tail: str) -> None:
    assert a_function(tmp_path, tail=tail).root_complex(BDF) == "pci0000:64"


def test_a_device_behind_no_root_complex_has_none(tmp_path: Path) -> None:
    pci = a_function(tmp_path)
    link = tmp_path / "bus/pci/devices/0000:01:00.0"
    link.symlink_to("../../../devices/platform/gpu")
    assert pci.root_complex("0000:01:00.0") is None


@pytest.mark.parametrize("ask", ["numa_node", "root_complex", "drm_nodes"])
def test_a_function_that_is_not_there_is_an_error_with_its_path(tmp_path: Path, ask: str) -> None:
    pci = a_function(tmp_path)
    with pytest.raises(HardwareError, match=r"no PCI function at .*0000:99:00.0"):
        getattr(pci, ask)("0000:99:00.0")


def test_drm_nodes_are_listed_in_order(tmp_path: Path) -> None:
    pci = a_function(tmp_path)
    for name in ("renderD128", "card1"):
        (tmp_path / "bus/pci/devices" / BDF / "drm" / name).mkdir(parents=True)
    assert pci.drm_nodes(BDF) == ("card1", "renderD128")


def test_a_function_without_display_driver_has_no_drm_nodes(tmp_path: Path) -> None:
    assert a_function(tmp_path).drm_nodes(BDF) == ()


def device_nodes(dev_root: Path, procfs: Path, **options: Path) -> HostDeviceNodes:
    host = Path("/run/nvidia/driver")
    return HostDeviceNodes(dev_root, host_dev_root=host, procfs=procfs, **options)


def test_a_character_device_is_described_with_its_path_on_the_host(tmp_path: Path) -> None:
    node = device_nodes(Path("/"), tmp_path).stat("/dev/null")
    status = Path("/dev/null").stat()
    assert node == DeviceNode(
        path="/dev/null",
        host_path="/run/nvidia/driver/dev/null",
        major=1,
        minor=3,
        mode=status.st_mode & 0o7777,
        gid=status.st_gid,
    )


def test_devices_of_the_root_keep_their_path(tmp_path: Path) -> None:
    nodes = HostDeviceNodes(Path("/"), host_dev_root=Path("/"), procfs=tmp_path)
    node = nodes.stat("/dev/null")
    assert node is not None
    assert node.host_path == node.path


def test_what_is_no_character_device_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").write_text("")
    nodes = device_nodes(tmp_path, tmp_path)
    assert nodes.stat("/dev/nvidia0") is None
    assert nodes.stat("/dev/nvidia1") is None
    assert nodes.stat("/dev/nvidia0/below-a-file") is None


def a_mig_device(procfs: Path, *, gpu: int = 0, gi: int = 1, ci: int = 0) -> Path:
    """Lays out what the driver shows of a MIG device; returns the GPU instance's directory."""
    instance = procfs / f"driver/nvidia/capabilities/gpu{gpu}/mig/gi{gi}"
    for directory, minor in ((instance, 30), (instance / f"ci{ci}", 31)):
        directory.mkdir(parents=True)
        (directory / "access").write_text(
            f"DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
        )
    (procfs / "devices").write_text(PROC_DEVICES)
    return instance


def test_the_capabilities_of_a_mig_device_are_two_nodes(tmp_path: Path) -> None:
    a_mig_device(tmp_path)
    gi, ci = device_nodes(tmp_path, tmp_path).mig_caps(0, 1, 0)
    assert gi == DeviceNode(
        path="/dev/nvidia-caps/nvidia-cap30",
        host_path="/run/nvidia/driver/dev/nvidia-caps/nvidia-cap30",
        major=236,
        minor=30,
        mode=0o444,
        gid=0,
    )
    assert ci.path == "/dev/nvidia-caps/nvidia-cap31"


def test_another_list_of_majors_can_be_named(tmp_path: Path) -> None:
    a_mig_device(tmp_path)
    other = tmp_path / "other-devices"
    other.write_text("Character devices:\n511 nvidia-caps\n")
    gi, _ = device_nodes(tmp_path, tmp_path, proc_devices=other).mig_caps(0, 1, 0)
    assert gi.major == 511


def test_a_mig_device_without_capabilities_is_an_error_with_the_file(tmp_path: Path) -> None:
    a_mig_device(tmp_path)
    with pytest.raises(HardwareError, match="gpu0/mig/gi9/access"):
        device_nodes(tmp_path, tmp_path).mig_caps(0, 9, 0)


def test_a_capability_without_its_number_is_an_error_with_the_line(tmp_path: Path) -> None:
    instance = a_mig_device(tmp_path)
    (instance / "access").write_text("DeviceFileMode: 292\n")
    with pytest.raises(HardwareError, match="gi1/access has no line DeviceFileMinor"):
        device_nodes(tmp_path, tmp_path).mig_caps(0, 1, 0)


def test_a_kernel_without_the_capability_driver_is_said(tmp_path: Path) -> None:
    a_mig_device(tmp_path)
    (tmp_path / "devices").write_text("Character devices:\n  1 mem\n")
    with pytest.raises(HardwareError, match="lists no character device nvidia-caps"):
        device_nodes(tmp_path, tmp_path).mig_caps(0, 1, 0)


def test_majors_are_read_from_the_character_section_only() -> None:
    assert character_major(PROC_DEVICES, "nvidia-caps") == 236
    assert character_major(PROC_DEVICES, "blkext") is None
    assert character_major("", "nvidia-caps") is None


def test_this_machine_has_majors() -> None:
    if not os.access("/proc/devices", os.R_OK):
        pytest.skip("no /proc/devices")
    assert character_major(Path("/proc/devices").read_text(), "mem") == 1
