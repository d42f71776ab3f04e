"""The driver's files are found wherever distributions put them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.cdi.driver_files import DriverFile, Link, is_current
from nvdra_nodeagent.hardware.errors import DriverMissing, HardwareError
from nvdra_testing.driver_root import DRIVER_VERSION, LIB, LIBCUDA, a_driver_root, driver_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def paths(files: Iterable[DriverFile]) -> list[str]:
    return [file.container_path for file in files]


def test_libraries_of_the_running_driver_are_taken_and_no_others(tmp_path: Path) -> None:
    vdpau = f"{LIB}/vdpau/libvdpau_nvidia.so.{DRIVER_VERSION}"
    others = (f"{LIB}/libcuda.so.535.1.1", f"{LIB}/libc.so.6", f"{LIB}/libnvidia-egl-gbm.so.1")
    egl = f"{LIB}/libnvidia-egl-gbm.so.1.1.2"
    a_driver_root(tmp_path, LIBCUDA, vdpau, egl, *others)
    found = driver_files(tmp_path)
    assert found.libcuda_dir == LIB
    assert paths(found.libraries) == sorted([LIBCUDA, egl, vdpau])
    assert found.library_dirs == (LIB, f"{LIB}/vdpau")


def test_without_libcuda_there_is_no_driver(tmp_path: Path) -> None:
    a_driver_root(tmp_path, f"{LIB}/libnvidia-ml.so.{DRIVER_VERSION}")
    with pytest.raises(DriverMissing, match=f"libcuda.so.{DRIVER_VERSION} not found"):
        driver_files(tmp_path)


def test_libraries_of_another_version_than_the_running_driver_are_told_apart(
    tmp_path: Path,
) -> None:
    a_driver_root(
        tmp_path, f"{LIB}/libcuda.so.550.1", links={f"{LIB}/libcuda.so.1": "libcuda.so.550.1"}
    )
    with pytest.raises(HardwareError, match=r"running driver is 570.158.01.*libcuda.so.550.1"):
        driver_files(tmp_path)


def test_libraries_kept_aside_are_found_through_the_link_to_libcuda(tmp_path: Path) -> None:
    aside = f"{LIB}/nvidia/current"
    a_driver_root(
        tmp_path,
        f"{aside}/libcuda.so.{DRIVER_VERSION}",
        links={
            f"{LIB}/libcuda.so.1": "/etc/alternatives/libcuda",
            "/etc/alternatives/libcuda": f"{aside}/libcuda.so.1",
            f"{aside}/libcuda.so.1": f"libcuda.so.{DRIVER_VERSION}",
        },
    )
    found = driver_files(tmp_path)
    assert found.libcuda_dir == aside
    assert paths(found.libraries) == [f"{aside}/libcuda.so.{DRIVER_VERSION}"]


def test_a_library_that_is_a_link_is_mounted_from_where_it_leads(tmp_path: Path) -> None:
    real, link = "/opt/driver/libnvidia-ml", f"{LIB}/libnvidia-ml.so.{DRIVER_VERSION}"
    a_driver_root(tmp_path, LIBCUDA, real, links={link: real})
    assert DriverFile(link, real) in driver_files(tmp_path).libraries


def test_a_link_that_leads_nowhere_is_left_out(tmp_path: Path) -> None:
    broken = f"{LIB}/libnvidia-ml.so.{DRIVER_VERSION}"
    a_driver_root(tmp_path, LIBCUDA, links={broken: "/nowhere"})
    assert paths(driver_files(tmp_path).libraries) == [LIBCUDA]


def test_the_links_of_libraries_are_made_again(tmp_path: Path) -> None:
    a_driver_root(
        tmp_path,
        LIBCUDA,
        f"{LIB}/libGLX_nvidia.so.{DRIVER_VERSION}",
        links={
            f"{LIB}/libcuda.so.1": f"libcuda.so.{DRIVER_VERSION}",
            f"{LIB}/libcuda.so": "libcuda.so.1",
            f"{LIB}/libGLX_nvidia.so.0": f"{LIB}/libGLX_nvidia.so.{DRIVER_VERSION}",
            f"{LIB}/libz.so": "libz.so.1",
        },
    )
    assert driver_files(tmp_path).links == (
        Link(f"{LIB}/libGLX_indirect.so.0", f"libGLX_nvidia.so.{DRIVER_VERSION}"),
        Link(f"{LIB}/libGLX_nvidia.so.0", f"libGLX_nvidia.so.{DRIVER_VERSION}"),
        Link(f"{LIB}/libcuda.so", "libcuda.so.1"),
        Link(f"{LIB}/libcuda.so.1", f"libcuda.so.{DRIVER_VERSION}"),
    )


def test_libcuda_gets_its_development_link_even_if_the_host_has_none(tmp_path: Path) -> None:
    a_driver_root(tmp_path, LIBCUDA)
    assert driver_files(tmp_path).links == (Link(f"{LIB}/libcuda.so", "libcuda.so.1"),)


def test_programs_settings_and_sockets_are_taken_where_they_are(tmp_path: Path) -> None:
    a_driver_root(
        tmp_path,
        LIBCUDA,
        "/usr/bin/nvidia-smi",
        "/usr/share/nvidia/nvoptix.bin",
        "/usr/share/vulkan/icd.d/nvidia_icd.json",
        "/run/nvidia-persistenced/socket",
        "/tmp/nvidia-mps/control",
    )
    found = driver_files(tmp_path)
    assert found.others == (
        DriverFile("/etc/vulkan/icd.d/nvidia_icd.json", "/usr/share/vulkan/icd.d/nvidia_icd.json"),
        DriverFile("/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi"),
        DriverFile("/usr/share/nvidia/nvoptix.bin", "/usr/share/nvidia/nvoptix.bin"),
    )
    assert paths(found.sockets) == ["/run/nvidia-persistenced/socket", "/tmp/nvidia-mps"]


def test_a_program_kept_aside_comes_onto_the_path(tmp_path: Path) -> None:
    aside = "/usr/lib/nvidia/current/nvidia-smi"
    a_driver_root(tmp_path, LIBCUDA, aside, links={"/usr/bin/nvidia-smi": aside})
    assert driver_files(tmp_path).others == (DriverFile("/usr/bin/nvidia-smi", aside),)


@pytest.mark.parametrize("directory", ["", "/updates", "/6.1.0", "/updates/6.1.0"])
def test_firmware_is_taken_from_where_the_kernel_looks(tmp_path: Path, directory: str) -> None:
    wanted = f"/lib/firmware{directory}/nvidia/{DRIVER_VERSION}/gsp_ga10x.bin"
    other = f"/lib/firmware{directory}/nvidia/535.1/gsp_ga10x.bin"
    a_driver_root(tmp_path, LIBCUDA, wanted, other)
    assert paths(driver_files(tmp_path, kernel="6.1.0").others) == [wanted]


def test_an_unchanged_root_is_not_searched_again(tmp_path: Path) -> None:
    a_driver_root(tmp_path, LIBCUDA, "/usr/bin/nvidia-smi")
    assert is_current(driver_files(tmp_path), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        f"{LIB}/libnvidia-ml.so.{DRIVER_VERSION}",
        "/usr/bin/nvidia-imex",
        "/run/nvidia-persistenced/socket",
        "/usr/local/share/nvidia/nvoptix.bin",
    ],
)
def test_a_file_that_comes_is_noticed(tmp_path: Path, change: str) -> None:
    a_driver_root(tmp_path, LIBCUDA, "/usr/bin/nvidia-smi")
    for directory in ("usr", "usr/bin", LIB.lstrip("/")):
        os.utime(tmp_path / directory, (1, 1))  # time stamps of directories are coarse
    before = driver_files(tmp_path)
    a_driver_root(tmp_path, change)
    assert not is_current(before, tmp_path)
    assert is_current(driver_files(tmp_path), tmp_path)
