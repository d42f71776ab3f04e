"""Finding the driver's files on a real file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.hardware.driver_root import (
    BINARY_DIRS,
    LIBRARY_DIRS,
    MountedDriverRoot,
    resolve,
)
from nvdra_nodeagent.hardware.errors import DriverMissing, HardwareError

NAME = "libnvidia-ml.so.1"


def a_root(path: Path) -> MountedDriverRoot:
    return MountedDriverRoot(path, host_path=Path("/run/nvidia/driver"))


def put(file: Path, content: str = "ELF") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def link(file: Path, target: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.symlink_to(target)


@pytest.mark.parametrize("directory", LIBRARY_DIRS)
def test_a_library_is_found_in_each_of_its_directories(tmp_path: Path, directory: str) -> None:
    file = put(tmp_path / directory.lstrip("/") / NAME)
    assert a_root(tmp_path).library(NAME) == file


@pytest.mark.parametrize("directory", BINARY_DIRS)
def test_a_program_is_found_in_each_of_its_directories(tmp_path: Path, directory: str) -> None:
    file = put(tmp_path / directory.lstrip("/") / "nvidia-smi")
    assert a_root(tmp_path).binary("nvidia-smi") == file


def test_the_first_directory_wins(tmp_path: Path) -> None:
    put(tmp_path / "lib64" / NAME)
    first = put(tmp_path / "usr/lib64" / NAME)
    assert a_root(tmp_path).library(NAME) == first


def test_a_directory_of_that_name_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "usr/lib64" / NAME).mkdir(parents=True)
    file = put(tmp_path / "usr/lib/x86_64-linux-gnu" / NAME)
    assert a_root(tmp_path).library(NAME) == file


def test_links_are_followed_to_the_file(tmp_path: Path) -> None:
    file = put(tmp_path / "usr/lib64/libnvidia-ml.so.570.158.01")
    link(tmp_path / "usr/lib64" / NAME, "libnvidia-ml.so.570.158.01")
    assert a_root(tmp_path).library(NAME) == file


def test_an_absolute_link_means_a_path_in_the_driver_root(tmp_path: Path) -> None:
    file = put(tmp_path / "opt/driver" / NAME)
    link(tmp_path / "usr/lib64" / NAME, f"/opt/driver/{NAME}")
    assert a_root(tmp_path).library(NAME) == file


def test_a_linked_directory_is_followed_within_the_root(tmp_path: Path) -> None:
    file = put(tmp_path / "usr/lib" / NAME)
    link(tmp_path / "usr/lib64", "/usr/lib")
    assert a_root(tmp_path).library(NAME) == file


def test_a_link_that_spells_out_the_root_is_within_it(tmp_path: Path) -> None:
    file = put(tmp_path / "opt" / NAME)
    link(tmp_path / "usr/lib64" / NAME, str(file))
    assert a_root(tmp_path).library(NAME) == file


def test_a_root_that_is_a_link_itself_stays_the_prefix(tmp_path: Path) -> None:
    put(tmp_path / "parent/driver/usr/lib64" / NAME)
    link(tmp_path / "driver-root", "parent/driver")
    found = a_root(tmp_path / "driver-root").library(NAME)
    assert found == tmp_path / "driver-root/usr/lib64" / NAME


def test_a_link_that_dangles_is_passed_over(tmp_path: Path) -> None:
    link(tmp_path / "usr/lib64" / NAME, "gone")
    file = put(tmp_path / "lib64" / NAME)
    assert a_root(tmp_path).library(NAME) == file


def test_links_in_a_circle_are_passed_over(tmp_path: Path) -> None:
    link(tmp_path / "usr/lib64" / NAME, NAME)
    with pytest.raises(DriverMissing):
        a_root(tmp_path).library(NAME)


def test_what_is_missing_is_named_with_root_and_places(tmp_path: Path) -> None:
    with pytest.raises(DriverMissing) as caught:
        a_root(tmp_path / "not-there").library(NAME)
    message = str(caught.value)
    assert NAME in message
    assert str(tmp_path / "not-there") in message
    assert "/usr/lib/x86_64-linux-gnu" in message
    assert "--nvidia-driver-root" in message


def test_a_directory_that_may_not_be_searched_is_an_error_of_its_own(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may search everything")
    (tmp_path / "usr").mkdir(mode=0o000)
    with pytest.raises(HardwareError, match="cannot look for"):
        a_root(tmp_path).library(NAME)


def test_the_host_knows_the_root_by_its_own_path(tmp_path: Path) -> None:
    root = a_root(tmp_path)
    assert (root.container_path, root.host_path) == (tmp_path, Path("/run/nvidia/driver"))


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/usr/../../etc/passwd"])
def test_nothing_outside_the_root_is_ever_found(tmp_path: Path, path: str) -> None:
    link(tmp_path / "usr/up", path)
    assert resolve(tmp_path, "/usr/up") is None


@given(
    st.lists(st.sampled_from(["a", "b", "..", ".", "", "up", "etc"]), min_size=1, max_size=8).map(
        "/".join
    )
)
def test_every_answer_is_below_the_root(path: str) -> None:
    root = Path(__file__).parent
    found = resolve(root, path)
    assert found is None or found.is_relative_to(root)
