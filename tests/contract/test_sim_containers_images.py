"""Stand-in images are made of this machine's own programs, and say what they are."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from nvdra_sim.cluster.kubelet.images import ImageError, ImageStore, InvalidImageName

if TYPE_CHECKING:
    from pathlib import Path


def test_every_name_gets_the_same_listed_content(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    assert store.image("ubuntu:22.04") is store.image("nvcr.io/nvidia/cuda:13.0")
    assert {"/usr/bin/bash", "/usr/bin/sleep", "/usr/bin/ls"} <= set(store.contents())


def test_os_release_says_that_it_is_a_stand_in(tmp_path: Path) -> None:
    image = ImageStore(tmp_path).image("busybox")
    assert "stand-in" in (image.root / "etc/os-release").read_text()


def test_a_second_store_opens_what_the_first_one_built(tmp_path: Path) -> None:
    first = ImageStore(tmp_path).image("a")
    stamp = first.root.stat().st_mtime_ns
    assert ImageStore(tmp_path).image("b") == first
    assert first.root.stat().st_mtime_ns == stamp


def test_stores_that_build_at_the_same_time_end_with_one_image(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        built = list(pool.map(lambda _: ImageStore(tmp_path).image("a"), range(3)))
    assert built[0] == built[1] == built[2]
    assert os.listdir(tmp_path) == ["stand-in"]  # noqa: PTH208


def test_programs_that_the_machine_lacks_are_left_out(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, programs=("sh", "no-such-program"))
    assert "/usr/bin/no-such-program" not in store.contents()


def test_without_a_shell_the_error_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="/usr/bin"):
        ImageStore(tmp_path, programs=("no-such-shell",)).image("a")


def test_an_unusable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match=str(tmp_path / "file")):
        ImageStore(tmp_path / "file" / "images").image("a")


def test_a_container_without_image_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="names no image"):
        ImageStore(tmp_path).image("")


def test_configuration_is_copied_so_that_a_container_cannot_change_the_image(
    tmp_path: Path,
) -> None:
    image = ImageStore(tmp_path / "images").image("a")
    image.unpack(tmp_path / "root")
    (tmp_path / "root/etc/passwd").write_text("changed")
    assert (image.root / "etc/passwd").read_text() != "changed"


def test_every_library_of_every_program_is_in_the_image(tmp_path: Path) -> None:
    image = ImageStore(tmp_path).image("a")
    programs = [str(path) for path in (image.root / "usr/bin").iterdir()]
    answer = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    wanted = {word for word in answer.stdout.split() if word.startswith("/") and ".so" in word}
    wanted = {word for word in wanted if not word.endswith(":")}
    assert wanted
    assert all((image.root / path.lstrip("/")).exists() for path in wanted)


@pytest.mark.parametrize(
    "name",
    [
        "ubuntu",
        "ubuntu:24.04",
        "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0",
        "localhost:5000/a__b/c--d",
        f"busybox@sha256:{'0' * 64}",
    ],
)
def test_references_to_images_are_taken(tmp_path: Path, name: str) -> None:
    assert ImageStore(tmp_path, programs=("sh",)).image(name).files


@pytest.mark.parametrize("name", ["UPPER CASE::bad", "Ubuntu", "a//b", "a:b:c", "x@sha256:0"])
def test_what_is_no_reference_to_an_image_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidImageName, match="couldn't parse image name"):
        ImageStore(tmp_path).image(name)
