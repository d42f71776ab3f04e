"""CDI files: one per claim, whole or absent, and errors that name the path."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.cdi import CdiBuilder, CdiSpec, CdiStore, ClaimFiles, ContainerEdits
from nvdra_nodeagent.cdi.document import DeviceEntry
from nvdra_nodeagent.cdi.names import devices_named_in
from nvdra_nodeagent.errors import Permanent, Retryable
from nvdra_nodeagent.inventory.snapshot import take_snapshot
from nvdra_sim.cluster.kubelet.cdi import CdiRegistry
from nvdra_sim.hardware import simulated_machine

if TYPE_CHECKING:
    from pathlib import Path

UID = "2f3e9a7e-7c1d-4a7e-9d5e-0123456789ab"


def a_spec(env: str = "A=b") -> CdiSpec:
    device = DeviceEntry(name=f"{UID}-gpu-0", container_edits=ContainerEdits(env=(env,)))
    return CdiSpec(cdi_version="0.5.0", kind="k8s.gpu.nvidia.com/claim", devices=(device,))


def test_a_claims_file_has_the_name_that_runtimes_know(tmp_path: Path) -> None:
    CdiStore(tmp_path / "cdi").write(UID, a_spec())
    [file] = (tmp_path / "cdi").iterdir()
    assert file.name == f"k8s.gpu.nvidia.com-claim_{UID}.yaml"
    assert file.stat().st_mode & 0o777 == 0o644


def test_what_was_written_is_read_and_listed(tmp_path: Path) -> None:
    store = CdiStore(tmp_path)
    store.write(UID, a_spec())
    store.write(UID, a_spec("A=c"))
    assert store.read(UID) == a_spec("A=c")
    assert store.holds(UID, a_spec("A=c"))
    assert not store.holds(UID, a_spec())
    assert store.claim_uids() == [UID]


def test_removing_twice_is_success(tmp_path: Path) -> None:
    store = CdiStore(tmp_path)
    store.write(UID, a_spec())
    assert store.remove(UID)
    assert not store.remove(UID)
    assert not store.holds(UID, a_spec())
    assert store.read(UID) is None
    assert store.claim_uids() == []


def test_before_the_first_write_there_is_nothing(tmp_path: Path) -> None:
    store = CdiStore(tmp_path / "missing")
    assert store.claim_uids() == []
    assert store.read(UID) is None
    assert not store.remove(UID)
    assert store.find_temporaries(older_than_s=0) == []


def test_files_of_others_are_neither_listed_nor_swept(tmp_path: Path) -> None:
    for name in ("nvidia.yaml", "k8s.gpu.nvidia.com-claim_x.json", ".other.yaml.ab.tmp"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "k8s.gpu.nvidia.com-claim_.yaml").write_text("{}")
    store = CdiStore(tmp_path)
    assert store.claim_uids() == []
    assert store.find_temporaries(older_than_s=0) == []


def test_old_leftovers_of_own_writes_are_swept(tmp_path: Path) -> None:
    leftover = tmp_path / f".k8s.gpu.nvidia.com-claim_{UID}.yaml.abcd.tmp"
    leftover.write_text("{")
    store = CdiStore(tmp_path)
    assert store.find_temporaries(older_than_s=60) == []
    os.utime(leftover, (time.time() - 120,) * 2)
    assert store.find_temporaries(older_than_s=60) == [leftover]


@pytest.mark.parametrize("content", ["", "{", "---\ncdiVersion: 0.5.0\nkind: a/b\n"])
def test_a_file_of_another_program_is_not_trusted(tmp_path: Path, content: str) -> None:
    store = CdiStore(tmp_path)
    store.path(UID).write_text(content)
    assert store.read(UID) is None
    assert not store.holds(UID, a_spec())


def test_the_other_driver_has_files_of_its_own(tmp_path: Path) -> None:
    gpus, domains = (
        CdiStore(tmp_path),
        CdiStore(tmp_path, kind="k8s.compute-domain.nvidia.com/claim"),
    )
    gpus.write(UID, a_spec())
    assert domains.claim_uids() == []
    assert not domains.remove(UID)


@pytest.mark.parametrize("uid", ["", "../x", "a.b", "a/b", ".hidden", "a b", "a\n"])
def test_a_uid_that_is_no_file_name_is_refused(tmp_path: Path, uid: str) -> None:
    with pytest.raises(Permanent, match="is not the UID of a claim"):
        CdiStore(tmp_path).write(uid, a_spec())


def test_an_unusable_directory_is_an_error_with_path_and_advice(tmp_path: Path) -> None:
    (tmp_path / "cdi").write_text("a file")
    store = CdiStore(tmp_path / "cdi")
    for attempt in (lambda: store.write(UID, a_spec()), store.claim_uids):
        with pytest.raises(Retryable) as failure:
            attempt()
        assert failure.value.reason == "StorageUnwritable"
        assert str(tmp_path / "cdi") in failure.value.message
        assert failure.value.hint


def test_a_claims_devices_go_into_a_file_that_a_runtime_resolves(tmp_path: Path) -> None:
    machine = simulated_machine("t4", tmp_path / "machine")
    files = ClaimFiles(CdiBuilder(machine), CdiStore(tmp_path / "cdi"))
    devices = [take_snapshot(machine).devices["gpu-0"]]
    files.write(UID, devices)
    edits = CdiRegistry([tmp_path / "cdi"]).resolve([files.device_id(UID, "gpu-0")])
    assert "/dev/nvidia0" in [node.path for node in edits.device_nodes]
    assert files.device_names(UID) == ["gpu-0"]
    assert files.claim_uids() == [UID]
    assert files.is_current(UID, devices)
    assert files.remove(UID)
    assert files.device_names(UID) == []


def test_a_claims_file_that_cannot_be_read_tells_of_no_device(tmp_path: Path) -> None:
    store = CdiStore(tmp_path / "cdi")
    store.path(UID).mkdir(parents=True)
    machine = simulated_machine("t4", tmp_path / "machine")
    assert ClaimFiles(CdiBuilder(machine), store).device_names(UID) == []


@pytest.mark.parametrize(
    "content",
    [
        "devices:\n- containerEdits: {}\n  name: U-gpu-0\n- name: U-gpu-1-mig-1g10gb-19-0\n",
        "devices:\n  - name: 'U-gpu-0'\n  - name: \"U-gpu-1-mig-1g10gb-19-0\"\n",
        '{"devices":[{"name":"U-gpu-0"},{"name": "U-gpu-1-mig-1g10gb-19-0"}]}',
        'cut off: {"name": "U-gpu-0", {"name":"U-gpu-1-mig-1g10gb-19-0"',
    ],
)
def test_devices_are_found_by_name_whoever_wrote_the_file(content: str) -> None:
    assert devices_named_in(content.encode(), "U") == ["gpu-0", "gpu-1-mig-1g10gb-19-0"]


@pytest.mark.parametrize(
    "content", ["hostPath: /mps/U-0123a/pipe", "hookName: U-gpu-0", "name: V-gpu-0", "\xff\xfe"]
)
def test_other_things_with_the_claims_uid_are_no_devices(content: str) -> None:
    assert devices_named_in(content.encode("latin-1"), "U") == []
