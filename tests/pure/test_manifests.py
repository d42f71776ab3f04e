"""Reading manifests: every mistake is named with file and line."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{POD}spec: &a {{x: *a}}\n", "m.yaml:1: an alias contains itself"),
        (f"{POD}spec: {'[' * 5000}{']' * 5000}\n", "m.yaml: nested too deeply"),
        (f"{POD}spec: {{priority: .nan}}\n", "m.yaml:1: cannot be written as JSON"),
        (f"{POD}spec: !!binary aGk=\n", "m.yaml:1: cannot be written as JSON"),
        ("apiVersion: v1\nkind: List\nitems: abc\n", "items of List is not a list"),
    ],
)
def test_yaml_that_is_no_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=re.escape(message)):
        load_manifests([file(tmp_path, text)])


def test_aliases_of_aliases_that_take_all_memory_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ManifestError, match="values, aliases written out"):
        load_manifests([file(tmp_path, "\n".join(lines))])


def test_a_mapping_may_be_merged_into_another(tmp_path: Path) -> None:
    text = f"{POD}spec:\n  <<: {{hostname: a, subdomain: b}}\n  hostname: c\n"
    spec = load_manifests([file(tmp_path, text)])[0].body["spec"]
    assert spec == {"hostname": "c", "subdomain": "b"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30:45", "12:30:45"),
        ("1:2.5", "1:2.5"),
        ("2020-01-01", "2020-01-01"),
        ("10", 10),
        ("-0x1f", -31),
        ("0644", 420),
        ("1.5", 1.5),
        ("2.5e+3", 2500.0),
        ("1.2.3", "1.2.3"),
        ("yes", True),
        ("~", None),
    ],
)
def test_plain_words_mean_what_they_mean_to_kubernetes(
    tmp_path: Path, text: str, value: object
) -> None:
    body = load_manifests([file(tmp_path, f"{POD}spec: {{x: {text}}}\n")])[0].body
    assert body["spec"]["x"] == value


def test_a_list_of_one_kind_is_taken_apart(tmp_path: Path) -> None:
    text = f"apiVersion: v1\nkind: PodList\nitems:\n- {POD.replace(chr(10), chr(10) + '  ')}"
    assert str(load_manifests([file(tmp_path, text)])[0]) == "Pod a"
