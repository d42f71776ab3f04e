"""The CDI hook stand-in makes links inside the container, and only there."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from nvdra_testing.simulated import simulated

if TYPE_CHECKING:
    from pathlib import Path


def bundle(tmp_path: Path, *, root: str = "rootfs") -> Path:
    """An OCI bundle; returns its root file system."""
    (tmp_path / "bundle").mkdir()
    config = {"ociVersion": "1.1.0", "process": {"env": ["A=b"]}, "root": {"path": root}}
    (tmp_path / "bundle/config.json").write_text(json.dumps(config, indent=2))
    rootfs = tmp_path / "bundle" / root
    rootfs.mkdir()
    return rootfs


def hook(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    state = {"ociVersion": "1.1.0", "id": "c", "pid": 1, "bundle": str(tmp_path / "bundle")}
    return subprocess.run(
        [simulated(tmp_path).machine.cdi_hook.host_path(), *arguments],
        input=json.dumps(state),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_links_are_made_with_their_directories(tmp_path: Path) -> None:
    rootfs = bundle(tmp_path)
    run = hook(
        tmp_path,
        *("create-symlinks", "--link", "libcuda.so.1::/usr/lib/x/libcuda.so"),
        "--link=../card1::/dev/dri/by-path/pci-0000:1b:00.0-card",
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert (rootfs / "usr/lib/x/libcuda.so").readlink().name == "libcuda.so.1"
    assert (rootfs / "dev/dri/by-path/pci-0000:1b:00.0-card").is_symlink()


def test_an_absolute_root_and_an_existing_link_are_fine(tmp_path: Path) -> None:
    rootfs = bundle(tmp_path, root=str(tmp_path / "elsewhere"))
    (rootfs / "link").symlink_to("old")
    assert hook(tmp_path, "create-symlinks", "--link", "new::/link").returncode == 0
    assert str((rootfs / "link").readlink()) == "new"


@pytest.mark.parametrize("target", ["/outside", "../../../outside"])
def test_links_in_the_image_do_not_lead_onto_the_host(tmp_path: Path, target: str) -> None:
    rootfs = bundle(tmp_path)
    (tmp_path / "outside").mkdir()
    (rootfs / "lib").symlink_to(target)
    assert hook(tmp_path, "create-symlinks", "--link", "a::/lib/b").returncode == 0
    assert (rootfs / "outside/b").is_symlink()
    assert list((tmp_path / "outside").iterdir()) == []


def test_files_of_the_image_are_not_replaced(tmp_path: Path) -> None:
    rootfs = bundle(tmp_path)
    (rootfs / "taken").write_text("file")
    run = hook(tmp_path, "create-symlinks", "--link", "a::/taken")
    assert run.returncode == 1
    assert "/taken exists in the container" in run.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["update-ldcache", "--folder", "/usr/lib"],
        ["enable-cuda-compat", "--host-driver-version=580.95.05"],
        ["disable-device-node-modification"],
    ],
)
def test_what_placeholders_do_not_need_is_accepted(tmp_path: Path, command: list[str]) -> None:
    bundle(tmp_path)
    run = hook(tmp_path, *command)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a command"),
        (["dance"], "unknown command dance"),
        (["create-symlinks", "--link", "a"], "TARGET::LINK"),
        (["create-symlinks", "--link", "a::relative"], "absolute LINK"),
        (["create-symlinks", "--wrong"], "unknown option --wrong"),
    ],
)
def test_wrong_use_is_explained(tmp_path: Path, arguments: list[str], said: str) -> None:
    bundle(tmp_path)
    run = hook(tmp_path, *arguments)
    assert (run.returncode, said in run.stderr) == (1, True)


def test_a_state_without_a_bundle_is_explained(tmp_path: Path) -> None:
    run = hook(tmp_path, "create-symlinks", "--link", "a::/b")
    assert run.returncode == 1
    assert "config.json" in run.stderr
