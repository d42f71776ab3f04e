"""Reading manifests: every mistake is named with file and line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nvdra_cli.manifests import ManifestError, load_manifests

if TYPE_CHECKING:
    from pathlib import Path

POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n"


def file(directory: Path, text: str, name: str = "m.yaml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_documents_keep_their_order_and_their_line(tmp_path: Path) -> None:
    path = file(tmp_path, f"# first\n\n---\n{POD}---\n{POD.replace('name: a', 'name: b')}")
    manifests = load_manifests([path])
    assert [m.body["metadata"]["name"] for m in manifests] == ["a", "b"]
    assert [m.source for m in manifests] == [f"{path}:4", f"{path}:9"]


def test_a_list_is_taken_apart(tmp_path: Path) -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n" + "".join(
        f"- apiVersion: v1\n  kind: Pod\n  metadata: {{name: {name}}}\n" for name in "xy"
    )
    assert [str(m) for m in load_manifests([file(tmp_path, text)])] == ["Pod x", "Pod y"]


def test_a_directory_means_its_files(tmp_path: Path) -> None:
    file(tmp_path, POD, "b.yaml")
    file(tmp_path, POD.replace("name: a", "name: first"), "a.yml")
    file(tmp_path, "not a manifest", "notes.txt")
    assert [str(m) for m in load_manifests([tmp_path])] == ["Pod first", "Pod a"]


def test_what_looks_like_a_date_stays_text(tmp_path: Path) -> None:
    path = file(tmp_path, POD + "  annotations: {day: 2024-01-01}\n")
    assert load_manifests([path])[0].body["metadata"]["annotations"] == {"day": "2024-01-01"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\nmetadata: {name: a}", r"m\.yaml:1: apiVersion is missing"),
        ("apiVersion: v1\nmetadata: {name: a}", r"m\.yaml:1: kind is missing"),
        ("apiVersion: v1\nkind: Pod", r"m\.yaml:1: Pod has no metadata\.name"),
        ("\n- a\n- b", r"m\.yaml:2: a manifest is a mapping, this is list"),
        (POD + "spec: {\n", r"m\.yaml:\d+: not valid YAML"),
        (POD + "kind: Job\n", r"m\.yaml:5: not valid YAML: key 'kind' is given twice"),
        (POD + "1: x\n", r"m\.yaml:5: not valid YAML: key 1 is not a string"),
        (POD + "x: *nowhere\n", r"m\.yaml:5: not valid YAML: found undefined alias"),
        (POD + "x: \a\n", r"m\.yaml: not valid YAML"),
        ("---\n---\n", r"no objects in .*m\.yaml"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        load_manifests([file(tmp_path, text)])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read .*nowhere\.yaml: No such file"):
        load_manifests([tmp_path / "nowhere.yaml"])


def test_a_binary_file_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="is not UTF-8 text"):
        load_manifests([path])
