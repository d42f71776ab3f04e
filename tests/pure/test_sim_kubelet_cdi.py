"""CDI files: strict reading, conflicts, and the order in which edits reach a container."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_sim.cluster.kubelet.cdi import CdiRegistry, merge_edits
from nvdra_sim.cluster.kubelet.cdi_spec import (
    CdiError,
    ContainerEdits,
    DeviceNode,
    Mount,
    parse_document,
)

if TYPE_CHECKING:
    from pathlib import Path

KIND = "example.com/gpu"
A_TYPED_MOUNT = {"hostPath": "/a", "containerPath": "/a", "type": "tmpfs"}


def a_document(**changes: Any) -> dict[str, Any]:
    device = {"name": "one", "containerEdits": {"env": ["GPU=one"]}}
    return {"cdiVersion": "0.5.0", "kind": KIND, "devices": [device], **changes}


def write(directory: Path, name: str, **changes: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(json.dumps(a_document(**changes)))
    return path


def edits(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "one", "containerEdits": fields}]


def test_yaml_and_json_are_both_read() -> None:
    text = (
        "---\ncdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- {name: x, containerEdits: {env: [A=1]}}"
    )
    assert parse_document(text).kind == "a.b/c"
    assert parse_document(json.dumps(a_document())).devices[0].name == "one"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"surprise": 1}, "surprise"),
        ({"cdiVersion": "9.9.9"}, "9.9.9"),
        ({"kind": "gpu"}, "<vendor>/<class>"),
        ({"kind": "1x/gpu"}, "<vendor>/<class>"),
        ({"devices": []}, "at least one device"),
        ({"devices": edits()}, "containerEdits is empty"),
        ({"devices": edits(env=["GPU"])}, "NAME=value"),
        ({"devices": edits(env=["=GPU"])}, "NAME=value"),
        ({"devices": edits(deviceNodes=[{"path": ""}])}, "path is empty"),
        ({"devices": edits(deviceNodes=[{"path": "/a", "type": "x"}])}, "type 'x'"),
        ({"devices": edits(deviceNodes=[{"path": "/a", "permissions": "rq"}])}, "'rq'"),
        ({"devices": edits(deviceNodes=[{"path": "/a", "mode": 1}])}, "mode"),
        ({"devices": edits(mounts=[{"hostPath": "", "containerPath": "/a"}])}, "must not be empty"),
        ({"devices": edits(hooks=[{"hookName": "never", "path": "/a"}])}, "'never' is not a hook"),
        ({"devices": edits(hooks=[{"hookName": "prestart", "path": ""}])}, "path is empty"),
        ({"devices": edits(env=["A=1"]) * 2}, "used twice"),
        ({"devices": [{"name": "-x", "containerEdits": {"env": ["A=1"]}}]}, "device name"),
    ],
)
def test_what_a_runtime_refuses_is_refused_with_the_field(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CdiError, match=complaint):
        parse_document(json.dumps(a_document(**changes)))


@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("0.3.0", {"devices": edits(mounts=[A_TYPED_MOUNT])}),
        ("0.4.0", {"devices": edits(deviceNodes=[{"path": "/a", "hostPath": "/b"}])}),
        ("0.5.0", {"kind": "example.com/gpu.claim"}),
        ("0.6.0", {"devices": edits(additionalGids=[4])}),
        ("1.0.0", {"devices": edits(netDevices=[{"hostInterfaceName": "e", "name": "f"}])}),
    ],
)  # fmt: skip
def test_a_version_too_low_for_the_content_is_refused(
    version: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(CdiError, match="too low"):
        parse_document(json.dumps(a_document(cdiVersion=version, **changes)))


def test_a_key_written_twice_is_refused() -> None:
    with pytest.raises(CdiError, match="line 2: key 'kind' is written twice"):
        parse_document("kind: a/b\nkind: a/c")


def test_text_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(CdiError, match="not YAML"):
        parse_document("{")


def test_file_level_edits_come_once_and_before_the_devices(tmp_path: Path) -> None:
    devices = [
        {"name": name, "containerEdits": {"hooks": [{"hookName": "prestart", "path": f"/{name}"}]}}
        for name in ("a", "b")
    ]
    shared = {"hooks": [{"hookName": "prestart", "path": "/all"}]}
    write(tmp_path, "x.json", devices=devices, containerEdits=shared)
    merged = CdiRegistry([tmp_path]).resolve([f"{KIND}=b", f"{KIND}=a", f"{KIND}=b"])
    assert [hook.path for hook in merged.hooks] == ["/all", "/b", "/a"]


def test_the_same_device_in_two_files_is_a_conflict(tmp_path: Path) -> None:
    paths = [write(tmp_path, name) for name in ("a.json", "b.yaml")]
    with pytest.raises(CdiError, match=r"unresolvable CDI devices example\.com/gpu=one") as caught:
        CdiRegistry([tmp_path]).resolve([f"{KIND}=one"])
    assert all(str(path) in str(caught.value) for path in paths)


def test_a_later_directory_wins(tmp_path: Path) -> None:
    write(tmp_path / "etc", "a.json")
    write(tmp_path / "run", "b.json", devices=edits(env=["GPU=two"]))
    registry = CdiRegistry([tmp_path / "etc", tmp_path / "run"])
    assert registry.resolve([f"{KIND}=one"]).env == ["GPU=two"]


def test_a_broken_file_is_skipped_alone_and_named_when_a_device_is_missing(tmp_path: Path) -> None:
    write(tmp_path, "good.json")
    bad = write(tmp_path, "bad.json", kind="example.com/other", surprise=1)
    registry = CdiRegistry([tmp_path])
    assert registry.resolve([f"{KIND}=one"]).env == ["GPU=one"]
    assert list(registry.problems()) == [bad]
    with pytest.raises(CdiError, match=f"{bad} is skipped"):
        registry.resolve(["example.com/other=one"])


def test_changes_and_removals_are_seen_at_the_next_use(tmp_path: Path) -> None:
    registry = CdiRegistry([tmp_path])
    path = write(tmp_path, "a.json")
    registry.resolve([f"{KIND}=one"])
    write(tmp_path, "a.json", devices=edits(env=["GPU=changed"]))
    assert registry.resolve([f"{KIND}=one"]).env == ["GPU=changed"]
    path.unlink()
    with pytest.raises(CdiError, match="unresolvable"):
        registry.resolve([f"{KIND}=one"])


def test_other_names_and_missing_directories_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, "a.json.tmp")
    registry = CdiRegistry([tmp_path, tmp_path / "absent"])
    with pytest.raises(CdiError, match="unresolvable"):
        registry.resolve([f"{KIND}=one"])


def test_no_ids_need_no_directory(tmp_path: Path) -> None:
    assert CdiRegistry([tmp_path / "absent"]).resolve([]).is_empty()


def test_a_later_edit_replaces_the_variable_node_and_mount_of_the_same_name() -> None:
    merged = merge_edits(
        ContainerEdits(
            env=[f"A={value}"],
            device_nodes=[DeviceNode(path="/dev/a", major=value)],
            mounts=[Mount(host_path=f"/{value}", container_path="/m")],
        )
        for value in (1, 2)
    )
    assert merged.env == ["A=2"]
    assert [node.major for node in merged.device_nodes] == [2]
    assert [mount.host_path for mount in merged.mounts] == ["/2"]


@given(st.permutations(["/a/b/c", "/a", "/z", "/a/b"]))
def test_no_mount_hides_another(paths: list[str]) -> None:
    mounts = [Mount(host_path="/h", container_path=path) for path in paths]
    order = [mount.container_path for mount in merge_edits([ContainerEdits(mounts=mounts)]).mounts]
    for index, path in enumerate(order):
        assert not any(earlier.startswith(f"{path}/") for earlier in order[:index])
