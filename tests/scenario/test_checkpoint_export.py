"""Going back: the claims that are prepared, in the format that the earlier driver reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_api import FeatureGates
from nvdra_nodeagent.checkpoint.command import DONE, FAILED, PARTLY, main
from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.document import decode_checkpoint
from nvdra_nodeagent.checkpoint.migration import Migration
from nvdra_nodeagent.claims.journal import Journal
from nvdra_nodeagent.claims.plan import Holdings, PlanRules, make_plan
from nvdra_nodeagent.inventory.model import Inventory
from nvdra_testing.checkpoints import (
    a_checkpoint,
    a_completed,
    a_gpu_device,
    a_group,
    a_mig_device,
    checksum_of,
)
from nvdra_testing.claims import (
    BOOT,
    DRIVER,
    NODE,
    OTHER_BOOT,
    a_config_entry,
    a_gpu,
    a_mig,
    a_record,
    a_ref,
    a_result,
    an_allocated,
    cdi_id,
)

if TYPE_CHECKING:
    from nvdra_nodeagent.claims.record import Record

MIG = a_mig(3)
INVENTORY = Inventory((a_gpu(0), a_gpu(1), a_gpu(3, migs=[MIG])))
RULES = PlanRules(
    driver=DRIVER, gates=FeatureGates.parse("TimeSlicingSettings=true"), cdi_id=cdi_id
)
SLICED = {
    "apiVersion": "resource.nvidia.com/v1beta1",
    "kind": "GpuConfig",
    "sharing": {"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Short"}},
}


class Plugin:
    """The directories of an agent, as its container sees them."""

    def __init__(self, root: Path) -> None:
        self.plugins = root / "plugins"
        self.state = self.plugins / DRIVER
        self.cdi = root / "cdi"
        self.output = self.state / "checkpoint.json"
        self.journal = Journal(self.state)
        for directory in (self.state, self.cdi):
            directory.mkdir(parents=True)

    def prepared(
        self, *results: Any, name: str = "claim", boot_id: str = BOOT, config: Any = ()
    ) -> Record:
        """A claim with its record and a CDI file of its devices."""
        claim = an_allocated(*results, name=name, config=config)
        plan = make_plan(claim, inventory=INVENTORY, holdings=Holdings(), rules=RULES)
        record = a_record(claim, plan, boot_id=boot_id)
        self.journal.write(record)
        names = [{"name": f"{claim.ref.uid}-{held.device}"} for held in record.devices]
        self.cdi_file(claim.ref.uid).write_text(json.dumps({"devices": names}))
        return record

    def cdi_file(self, uid: str) -> Path:
        return self.cdi / f"k8s.gpu.nvidia.com-claim_{uid}.yaml"

    def export(self, output: Path | None = None, *, boot_id: str = BOOT) -> int:
        arguments = ["--output", str(output or self.output)]
        return main(arguments, environ=self.environ, boot_id=boot_id)

    @property
    def environ(self) -> dict[str, str]:
        return {"KUBELET_PLUGINS_DIRECTORY_PATH": str(self.plugins), "CDI_ROOT": str(self.cdi)}

    def document(self) -> Any:
        return json.loads(self.output.read_bytes())

    def claim(self, name: str = "claim") -> Any:
        return self.document()["v2"]["preparedClaims"][a_ref(name).uid]


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def test_a_prepared_claim_is_what_the_earlier_driver_would_have_written(plugin: Plugin) -> None:
    plugin.prepared("gpu-0")
    assert plugin.export() == DONE
    expected = a_completed(a_group(a_gpu_device(0)))
    del expected["status"]["reservedFor"]
    assert plugin.claim() == expected
    assert list(plugin.claim()) == list(expected)


def test_a_mig_device_names_its_gpu_and_its_instances(plugin: Plugin) -> None:
    plugin.prepared(MIG.name)
    assert plugin.export() == DONE
    (group,) = plugin.claim()["preparedDevices"]
    assert group == a_group(a_mig_device(MIG, minor=3))


def test_time_slices_are_a_group_of_their_own(plugin: Plugin) -> None:
    results = (a_result("gpu-0", request="sliced"), a_result("gpu-1", request="plain"))
    config = [a_config_entry(SLICED, requests=["sliced"])]
    plugin.prepared(*results, config=config)
    assert plugin.export() == DONE
    sliced, plain = plugin.claim()["preparedDevices"]
    assert sliced == a_group(a_gpu_device(0, request="sliced"), timeSliceApplied=True)
    assert plain == a_group(a_gpu_device(1, request="plain"))


def test_admin_access_and_shares_are_in_the_status(plugin: Plugin) -> None:
    plugin.prepared(a_result("gpu-0", adminAccess=True), a_result("gpu-1", shareID="s"))
    assert plugin.export() == DONE
    first, second = plugin.claim()["status"]["allocation"]["devices"]["results"]
    assert (first["adminAccess"], second["shareID"]) == (True, "s")


def test_the_checksums_are_those_that_its_reader_computes(plugin: Plugin) -> None:
    plugin.prepared("gpu-0", name="one")
    plugin.prepared(MIG.name, name="two")
    plugin.export()
    document = plugin.document()
    v2 = document.pop("v2")
    assert document["checksum"] == checksum_of({**document, "checksum": 0})
    assert v2["checksum"] == checksum_of({**v2, "checksum": 0})
    assert v2["nodeBootID"] == BOOT
    assert set(document["v1"]["preparedClaims"]) == set(v2["preparedClaims"])


def test_a_node_without_claims_has_a_checkpoint_of_none(plugin: Plugin) -> None:
    assert plugin.export() == DONE
    assert decode_checkpoint(plugin.output.read_bytes()).claims == {}


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_there_is_not_overwritten(
    kind: str, plugin: Plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "file":
        plugin.output.write_text("precious")
    elif kind == "directory":
        plugin.output.mkdir()
    else:
        plugin.output.symlink_to("/nowhere")
    assert plugin.export() == FAILED
    assert f"{plugin.output} exists" in capsys.readouterr().err


def not_finished(plugin: Plugin) -> None:
    plugin.cdi_file(plugin.prepared("gpu-1", name="odd").claim.uid).unlink()


def of_an_earlier_boot(plugin: Plugin) -> None:
    plugin.prepared("gpu-1", name="odd", boot_id=OTHER_BOOT)


def damaged(plugin: Plugin) -> None:
    uid = plugin.prepared("gpu-1", name="odd").claim.uid
    (plugin.journal.directory / f"{uid}.json").write_bytes(b"#")


def quarantined(plugin: Plugin) -> None:
    uid = plugin.prepared("gpu-1", name="odd").claim.uid
    plugin.journal.set_aside(uid, "checksum")


def gone_but_not_undone(plugin: Plugin) -> None:
    (plugin.state / "tombstones").mkdir()
    (plugin.state / "tombstones" / f"{a_ref('odd').uid}.json").write_text("{}")


@pytest.mark.parametrize(
    "odd", [not_finished, of_an_earlier_boot, damaged, quarantined, gone_but_not_undone]
)
def test_what_cannot_be_expressed_is_named_and_the_rest_is_written(
    odd: Any, plugin: Plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin.prepared("gpu-0")
    odd(plugin)
    assert plugin.export() == PARTLY
    assert f"claim {a_ref('odd').uid} is left out" in capsys.readouterr().err
    assert set(plugin.document()["v2"]["preparedClaims"]) == {a_ref().uid}


def test_reading_leaves_the_agents_files_alone(plugin: Plugin) -> None:
    plugin.prepared("gpu-0")
    damaged(plugin)
    before = {path: path.read_bytes() for path in plugin.state.rglob("*") if path.is_file()}
    plugin.export()
    assert {path: path.read_bytes() for path in before} == before


def test_a_directory_that_cannot_be_written_is_said(
    plugin: Plugin, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin.prepared("gpu-0")
    (plugin.state / "file").write_text("in the way")
    assert plugin.export(plugin.state / "file" / "x") == FAILED
    assert "Not a directory" in capsys.readouterr().err


def there_and_back(plugin: Plugin, record: Record) -> Record:
    assert plugin.export() == DONE
    other = Plugin(plugin.plugins.parent / "other")
    other.output.write_bytes(plugin.output.read_bytes())
    node = EarlierNode(DRIVER, NODE, BOOT, INVENTORY)
    Migration(other.state, other.journal, node=node).run()
    back = other.journal.read(record.claim.uid)
    assert back
    return back


def test_time_slices_are_known_when_an_export_is_taken_over(plugin: Plugin) -> None:
    results = (a_result("gpu-0", request="sliced"), a_result("gpu-1", request="plain"))
    config = [a_config_entry(SLICED, requests=["sliced"])]
    record = plugin.prepared(*results, config=config)
    back = there_and_back(plugin, record)
    assert [entry.step for entry in back.steps] == [entry.step for entry in record.steps]


def test_the_way_there_and_back_again_changes_nothing(plugin: Plugin) -> None:
    record = plugin.prepared("gpu-0")
    back = there_and_back(plugin, record)
    assert (back.devices, back.steps, back.allocation) == (
        record.devices,
        record.steps,
        record.allocation,
    )


def test_the_program_has_the_command(plugin: Plugin) -> None:
    plugin.prepared("gpu-0", boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    program = [sys.executable, "-m", "nvdra_nodeagent.main", "export-checkpoint"]
    done = subprocess.run(
        [*program, "--output", str(plugin.output)],
        env={**os.environ, **plugin.environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (DONE, "")
    assert done.stdout == f"{plugin.output}: 1 claims\n"


def test_an_agent_that_starts_meanwhile_leaves_the_export_for_the_earlier_driver(
    plugin: Plugin,
) -> None:
    record = plugin.prepared("gpu-0")
    plugin.export()
    node = EarlierNode(DRIVER, NODE, BOOT)
    assert Migration(plugin.state, plugin.journal, node=node).run() is None
    assert plugin.output.exists()
    assert plugin.journal.read(record.claim.uid) == record


def test_a_file_that_the_earlier_driver_wrote_since_is_taken_over(plugin: Plugin) -> None:
    plugin.prepared("gpu-0")
    plugin.export()
    uid = a_ref("later").uid
    later = a_completed(a_group(a_gpu_device(1, uid=uid)))
    plugin.output.write_bytes(a_checkpoint({uid: later}))
    node = EarlierNode(DRIVER, NODE, BOOT)
    report = Migration(plugin.state, plugin.journal, node=node).run()
    assert report
    assert report.recorded == [uid]
