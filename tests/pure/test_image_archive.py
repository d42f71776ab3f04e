"""OCI archives: what containerd and others read."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_testing.image import image_module

if TYPE_CHECKING:
    from pathlib import Path

archive = image_module("archive")
REFERENCE = "localhost/x:v1"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "layer"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/program").write_text("#!/bin/sh\n")
    (root / "usr/bin/program").chmod(0o755)
    (root / "bin").symlink_to("usr/bin")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    return root


def config() -> Any:
    return archive.ImageConfig(
        architecture="arm64", user="1:1", command=["a"], environment={"A": "b"}, labels={"l": "m"}
    )


def written(tree: Path) -> dict[str, bytes]:
    target = tree.parent / "image.tar"
    archive.write_archive(target, [archive.pack(tree)], config(), reference=REFERENCE)
    with tarfile.open(target) as tar:
        members = {each.name: tar.extractfile(each) for each in tar}
        return {name: file.read() for name, file in members.items() if file}


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """The content that a descriptor names; it has to have that size and digest."""
    algorithm, digest = descriptor["digest"].split(":")
    content = files[f"blobs/{algorithm}/{digest}"]
    assert len(content) == descriptor["size"]
    assert hashlib.new(algorithm, content).hexdigest() == digest
    return content


def test_every_descriptor_fits_its_blob(tree: Path) -> None:
    files = written(tree)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (named,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blob(files, named))
    image = json.loads(blob(files, manifest["config"]))
    layer = gzip.decompress(blob(files, manifest["layers"][0]))
    assert image["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]


def test_containerd_learns_the_images_name(tree: Path) -> None:
    (named,) = json.loads(written(tree)["index.json"])["manifests"]
    assert named["annotations"]["io.containerd.image.name"] == REFERENCE
    assert named["annotations"]["org.opencontainers.image.ref.name"] == "v1"
    assert named["platform"] == {"architecture": "arm64", "os": "linux"}


def test_the_config_says_how_containers_start() -> None:
    document = config().document(["sha256:1"])
    assert document["architecture"] == "arm64"
    assert document["config"]["User"] == "1:1"
    assert document["config"]["Env"] == ["A=b"]
    assert document["config"]["Labels"] == {"l": "m"}


def test_a_layer_keeps_modes_and_links_and_belongs_to_root(tree: Path) -> None:
    content = gzip.decompress(archive.pack(tree).file.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        entries = {each.name: each for each in tar}
    assert entries["usr/bin/program"].mode == 0o755
    assert entries["tmp"].mode == 0o1777
    assert entries["bin"].linkname == "usr/bin"
    assert {(each.uid, each.gid, each.uname) for each in entries.values()} == {(0, 0, "")}


def test_equal_trees_give_equal_layers(tree: Path) -> None:
    first = archive.pack(tree)
    other = tree.with_name("again")
    tree.rename(other)
    os.utime(other / "usr/bin/program", (1, 1))
    assert archive.pack(other).digest == first.digest


def test_an_archive_that_cannot_be_finished_leaves_nothing(tree: Path) -> None:
    lost = archive.Layer(tree / "gone.tar.gz", "1", "2")
    before = sorted(tree.parent.iterdir())
    with pytest.raises(FileNotFoundError):
        archive.write_archive(tree.parent / "image.tar", [lost], config(), reference=REFERENCE)
    assert sorted(tree.parent.iterdir()) == before


def test_packing_twice_does_the_work_once(tree: Path) -> None:
    first = archive.pack(tree)
    before = first.file.stat().st_mtime_ns
    assert archive.pack(tree) == first
    assert first.file.stat().st_mtime_ns == before
