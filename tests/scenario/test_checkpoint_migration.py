"""Claims that an earlier driver prepared go on: held, answered, unprepared; the rest is fenced."""

from __future__ import annotations

import asyncio
import fcntl
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from nvdra_nodeagent.checkpoint.conversion import EarlierNode
from nvdra_nodeagent.checkpoint.migration import Migration, take_over
from nvdra_nodeagent.claims.journal import Journal, decode
from nvdra_nodeagent.claims.observer import ClaimObserver
from nvdra_nodeagent.claims.overlap import Extent, extent_of
from nvdra_nodeagent.errors import AgentError, Retryable
from nvdra_nodeagent.inventory.model import Inventory
from nvdra_nodeagent.steps.time_slice import TimeSliceStep
from nvdra_testing.checkpoints import (
    UID,
    a_checkpoint,
    a_completed,
    a_gpu_device,
    a_group,
    a_mig_device,
    a_started,
    a_status,
    a_vfio_device,
)
from nvdra_testing.claims import (
    BOOT,
    DRIVER,
    NODE,
    OTHER_BOOT,
    ClaimNode,
    a_config_entry,
    a_gpu,
    a_mig,
    a_node_of,
    a_ref,
    a_result,
    cdi_id,
    gpu_uuid,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nvdra_nodeagent.checkpoint.document import ClaimEntry
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.claims.service import NodeClaims

REF, RIVAL = a_ref(), a_ref("rival")
SUPPORT = Path(__file__).parents[1] / "support"
MIG = a_mig(0)
SLICED = {
    "apiVersion": "resource.nvidia.com/v1beta1",
    "kind": "GpuConfig",
    "sharing": {"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}},
}


class EarlierNodeFiles(ClaimNode):
    """A node on which an earlier driver has been at work."""

    @property
    def state(self) -> Path:
        return self.root / "state"

    def leave(
        self, claims: dict[str, Any], *, cdi: dict[str, str] | None = None, **how: Any
    ) -> None:
        """Its checkpoint, and the devices in its CDI files."""
        self.state.mkdir(exist_ok=True)
        (self.state / "checkpoint.json").write_bytes(a_checkpoint(claims, **how))
        self.cdi.root.mkdir(exist_ok=True)
        for uid, device in (cdi or {}).items():
            self.cdi.path(uid).write_text(f"{device} as the earlier driver wrote it\n")

    async def migrated(self, **more: Any) -> NodeClaims:
        """An agent after its first start."""
        node = EarlierNode(DRIVER, NODE, more.get("boot_id", BOOT))
        await take_over(self.state, node=node, observer=self.observer)
        agent = self.agent(**more)
        await agent.start()
        return agent

    def record(self, uid: str = UID) -> Record:
        return decode((self.state / "claims" / f"{uid}.json").read_bytes(), uid=uid)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[EarlierNodeFiles]:
    node = EarlierNodeFiles(tmp_path, inventory=a_node_of(4))
    yield node
    await node.close()


async def answer(agent: NodeClaims, node: ClaimNode, device: Any, ref: Any = RIVAL) -> Any:
    return (await agent.prepare([node.api.add(ref, device)]))[ref.uid]


async def reason(agent: NodeClaims, node: ClaimNode, device: Any) -> str:
    """Why another claim does not get the device; "" when it does, and it gives it back."""
    refused = await answer(agent, node, device)
    if isinstance(refused, AgentError):
        return refused.reason
    await agent.unprepare([RIVAL])
    return ""


COMPLETED = {UID: a_completed(a_group(a_gpu_device(0)))}


async def test_a_prepared_claim_keeps_its_gpu(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    agent = await node.migrated()
    assert await reason(agent, node, "gpu-0") == "DeviceInUse"
    assert await reason(agent, node, "gpu-1") == ""


async def test_the_first_section_alone_is_enough(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED, versions=("v1",))
    assert await reason(await node.migrated(), node, "gpu-0") == "DeviceInUse"


async def test_the_cdi_file_is_left_as_it_is_for_containers_that_restart(
    node: EarlierNodeFiles,
) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    before = node.cdi.path(UID).read_bytes()
    agent = await node.migrated()
    node.api.add(REF)
    await agent.sweep()
    await agent.reconcile()
    assert node.cdi.path(UID).read_bytes() == before


async def test_preparing_it_again_answers_the_ids_that_its_pod_has(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    agent = await node.migrated()
    (device,) = await answer(agent, node, "gpu-0", REF)
    assert device.cdi_ids == (cdi_id(UID, "gpu-0"),)
    assert node.cdi.exists(UID)


async def test_the_record_is_the_one_that_a_prepare_would_have_made(
    node: EarlierNodeFiles,
) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    agent = await node.migrated()
    node.api.add(REF)
    await agent.reconcile()  # completes the name
    migrated = node.record()
    await agent.unprepare([REF])
    await answer(agent, node, "gpu-0", REF)
    assert migrated == node.record()


async def test_unpreparing_it_leaves_nothing(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    agent = await node.migrated()
    assert await agent.unprepare([REF]) == {UID: None}
    assert node.files() == ["state/checkpoint.json.migrated", "state/cp.lock"]


async def test_a_claim_that_is_gone_is_swept_with_its_cdi_file(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    agent = await node.migrated(sweep_grace_s=0.0)
    assert (await agent.sweep()).released == [UID]
    assert node.files() == ["state/checkpoint.json.migrated", "state/cp.lock"]


async def test_a_completed_claim_gets_its_name_from_the_api(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED)
    agent = await node.migrated()
    assert node.record().claim.name == ""
    node.api.add(REF)
    await agent.reconcile()
    assert node.record().claim == REF


async def test_the_file_is_read_once(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    await (await node.migrated()).unprepare([REF])
    agent = await node.migrated()
    assert await reason(agent, node, "gpu-0") == ""
    assert (node.state / "checkpoint.json.migrated").exists()


async def test_admin_access_holds_nothing(node: EarlierNodeFiles) -> None:
    results = [a_result("gpu-0", adminAccess=True)]
    node.leave({UID: a_completed(a_group(a_gpu_device(0)), results=results)}, cdi={UID: "gpu-0"})
    assert await reason(await node.migrated(), node, "gpu-0") == ""


async def test_shares_of_a_gpu_are_told_apart(node: EarlierNodeFiles) -> None:
    results = [a_result("gpu-0", shareID="s1")]
    device = a_gpu_device(0, ShareID="s1")
    node.leave({UID: a_completed(a_group(device), results=results)}, cdi={UID: "gpu-0"})
    agent = await node.migrated()
    assert await reason(agent, node, a_result("gpu-0", shareID="s2")) == ""
    assert await reason(agent, node, "gpu-0") == "DeviceInUse"


async def test_a_mig_device_that_is_seen_keeps_its_slices_only(node: EarlierNodeFiles) -> None:
    node.inventory = Inventory((a_gpu(0, migs=[MIG, a_mig(0, start=1, gi=8)]),))
    node.leave({UID: a_completed(a_group(a_mig_device(MIG)))}, cdi={UID: MIG.name})
    agent = await node.migrated()
    assert await reason(agent, node, MIG.name) == "DeviceInUse"
    await agent.reconcile()
    assert await reason(agent, node, "gpu-0-mig-1g10gb-19-1") == ""
    assert node.record().devices[0].extent == extent_of(node.inventory.devices[MIG.name])


async def test_a_mig_device_that_is_not_seen_keeps_its_gpu(node: EarlierNodeFiles) -> None:
    node.leave({UID: a_completed(a_group(a_mig_device(MIG)))}, cdi={UID: MIG.name})
    agent = await node.migrated()
    assert node.record().devices[0].extent == Extent(gpu_uuid(0))
    assert await reason(agent, node, "gpu-0") == "DeviceInUse"
    assert await agent.unprepare([REF]) == {UID: None}


async def test_time_slices_are_the_claims_to_undo(node: EarlierNodeFiles) -> None:
    group = a_group(a_gpu_device(0), timeSliceApplied=True)
    node.leave({UID: a_completed(group, config=[a_config_entry(SLICED)])})
    await node.migrated()
    step = node.record().steps[0]
    assert step.step == TimeSliceStep(UID, gpu_uuid(0), 3)
    assert step.result == {"compute_mode": "0", "time_slice": "0"}


async def test_a_group_without_time_slices_has_none_to_undo(node: EarlierNodeFiles) -> None:
    node.leave({UID: a_completed(a_group(a_gpu_device(0)), a_group(a_gpu_device(1)))})
    await node.migrated()
    assert [type(entry.step).__name__ for entry in node.record().steps] == ["CdiStep"]
    assert [held.device for held in node.record().devices] == ["gpu-0", "gpu-1"]


FENCED = {
    "a prepare not finished": a_started(a_result("gpu-0")),
    "a GPU passed through": a_completed(
        a_group(a_vfio_device(0)), results=[a_result("gpu-vfio-0")]
    ),
    "MPS": a_completed(a_group(a_gpu_device(0), mpsControlDaemonID=f"{UID}-0123a")),
    "time slices without a config": a_completed(a_group(a_gpu_device(0), timeSliceApplied=True)),
    "other devices than allocated": a_completed(
        a_group(a_gpu_device(0)), results=[a_result("gpu-1")]
    ),
    "another node's": a_completed(
        a_group(a_gpu_device(0)), results=[{**a_result("gpu-0"), "pool": "elsewhere"}]
    ),
    "a status of another form": {
        **a_completed(a_group(a_gpu_device(0))),
        "status": {"allocation": {"devices": {"results": "gpu-0"}}},
    },
    "an unknown state": {**a_completed(a_group(a_gpu_device(0))), "checkpointState": "Later"},
    "an unknown effect": a_completed(a_group(a_gpu_device(0), laterApplied=True)),
}


@pytest.mark.parametrize("claim", FENCED.values(), ids=FENCED)
async def test_what_is_not_understood_is_fenced(claim: Any, node: EarlierNodeFiles) -> None:
    node.leave({UID: claim, **_another_claim()})
    agent = await node.migrated()
    assert node.observer.told.count(f"quarantined {UID}") == 1
    assert await reason(agent, node, "gpu-0") == "DeviceFenced"
    assert await reason(agent, node, "gpu-3") == "DeviceInUse"
    assert await reason(agent, node, "gpu-2") == ""


@pytest.mark.parametrize("claim", FENCED.values(), ids=FENCED)
async def test_a_fence_outlives_restarts_and_ends_with_its_claim(
    claim: Any, node: EarlierNodeFiles
) -> None:
    node.leave({UID: claim}, cdi={UID: "gpu-0"})
    await node.migrated()
    agent = await node.migrated()
    assert await reason(agent, node, "gpu-0") == "DeviceFenced"
    assert await agent.unprepare([REF]) == {UID: None}
    assert await reason(agent, node, "gpu-0") == ""
    assert node.files() == ["state/checkpoint.json.migrated", "state/cp.lock"]


def _another_claim() -> dict[str, Any]:
    uid = a_ref("another").uid
    return {uid: a_completed(a_group(a_gpu_device(3, uid=uid)))}


async def test_a_prepare_that_was_not_finished_is_begun_anew(node: EarlierNodeFiles) -> None:
    node.leave({UID: a_started(a_result("gpu-0"))})
    agent = await node.migrated()
    (device,) = await answer(agent, node, "gpu-0", REF)
    assert device.device == "gpu-0"
    assert agent.fences() == 0


async def test_a_prepare_that_was_not_finished_holds_nothing_by_admin_access(
    node: EarlierNodeFiles,
) -> None:
    node.leave({UID: a_started(a_result("gpu-0", adminAccess=True))}, cdi={UID: "gpu-0"})
    assert await reason(await node.migrated(), node, "gpu-0") == ""


async def test_a_fence_whose_claim_the_api_knows_becomes_a_record(node: EarlierNodeFiles) -> None:
    claim = a_completed(a_group(a_gpu_device(0), timeSliceApplied=True))
    node.leave({UID: claim}, cdi={UID: "gpu-0"})
    agent = await node.migrated()
    node.api.add(REF)
    node.api.claims[REF.name]["status"]["reservedFor"] = a_status([])["reservedFor"]
    assert (await agent.reconcile()).rebuilt == [UID]
    assert await reason(agent, node, "gpu-0") == "DeviceInUse"


def with_wrong_checksum(node: EarlierNodeFiles) -> None:
    path = node.state / "checkpoint.json"
    document = json.loads(path.read_bytes())
    document["v2"]["checksum"] ^= 1
    path.write_text(json.dumps(document))


async def test_with_a_wrong_checksum_the_claim_is_fenced_until_the_api_and_its_file_agree(
    node: EarlierNodeFiles,
) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    with_wrong_checksum(node)
    agent = await node.migrated()
    assert await reason(agent, node, "gpu-0") == "DeviceFenced"
    node.api.add(REF)
    node.api.claims[REF.name]["status"]["reservedFor"] = a_status([])["reservedFor"]
    assert (await agent.reconcile()).rebuilt == [UID]
    assert await reason(agent, node, "gpu-0") == "DeviceInUse"


async def test_with_a_wrong_checksum_admin_access_is_not_believed(node: EarlierNodeFiles) -> None:
    node.leave({UID: a_started(a_result("gpu-0", adminAccess=True))})
    with_wrong_checksum(node)
    assert await reason(await node.migrated(), node, "gpu-0") == "DeviceFenced"


@pytest.mark.parametrize(
    "cdi", [{}, {UID: "gpu-0"}, {UID: "gpu-1"}], ids=["no file", "the same", "another device"]
)
async def test_with_a_wrong_checksum_all_that_the_claim_may_hold_is_fenced(
    cdi: dict[str, str], node: EarlierNodeFiles
) -> None:
    node.leave(COMPLETED, cdi=cdi)
    with_wrong_checksum(node)
    agent = await node.migrated()
    assert {await reason(agent, node, name) for name in ("gpu-0", *cdi.values())} == {
        "DeviceFenced"
    }


@pytest.mark.parametrize(
    "content", [b"", b"not json", b'{"checksum":1,"v7":{"preparedClaims":{}}}']
)
async def test_a_file_of_no_known_version_is_moved_aside_and_cdi_files_fence_its_devices(
    content: bytes, node: EarlierNodeFiles
) -> None:
    node.leave({}, cdi={UID: "gpu-0"})
    (node.state / "checkpoint.json").write_bytes(content)
    agent = await node.migrated()
    assert await reason(agent, node, "gpu-0") == "DeviceFenced"
    assert await reason(agent, node, "gpu-1") == ""
    assert (node.state / "checkpoint.json.unreadable").read_bytes() == content
    assert "quarantined " in node.observer.told


async def test_without_a_checkpoint_nothing_is_done(node: EarlierNodeFiles) -> None:
    node.state.mkdir()
    await node.migrated()
    assert node.files() == []


async def test_a_directory_in_its_place_is_no_checkpoint(node: EarlierNodeFiles) -> None:
    (node.state / "checkpoint.json").mkdir(parents=True)
    assert await reason(await node.migrated(), node, "gpu-0") == ""


async def test_names_that_are_no_uids_are_left_out(node: EarlierNodeFiles) -> None:
    node.leave({"../../etc/passwd": a_completed(a_group(a_gpu_device(1))), **COMPLETED})
    agent = await node.migrated()
    assert await reason(agent, node, "gpu-0") == "DeviceInUse"
    assert await reason(agent, node, "gpu-1") == ""


async def test_after_a_reboot_claims_are_prepared_anew(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    agent = await node.migrated(boot_id=OTHER_BOOT)
    await answer(agent, node, "gpu-0", REF)
    assert node.record().boot_id == OTHER_BOOT
    assert await agent.unprepare([REF]) == {UID: None}


async def test_a_file_of_an_age_without_boot_ids_is_of_this_boot(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED, boot_id="")
    await node.migrated()
    assert node.record().boot_id == BOOT


async def test_a_claim_that_the_journal_knows_is_left_as_it_is(node: EarlierNodeFiles) -> None:
    agent = await node.migrated()
    await answer(agent, node, "gpu-1", REF)
    before = node.record()
    node.leave(COMPLETED)
    await node.migrated()
    assert node.record() == before


def a_migration(node: EarlierNodeFiles, **more: Any) -> Migration:
    earlier = EarlierNode(DRIVER, NODE, BOOT)
    return Migration(node.state, Journal(node.state), node=earlier, **more)


async def test_a_disk_that_refuses_leaves_the_file_for_the_next_start(
    node: EarlierNodeFiles,
) -> None:
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    (node.state / "claims").write_text("in the way")
    with pytest.raises(Retryable):
        await asyncio.to_thread(a_migration(node).run)
    assert (node.state / "checkpoint.json").exists()
    (node.state / "claims").unlink()
    assert await reason(await node.migrated(), node, "gpu-0") == "DeviceInUse"


async def test_a_driver_that_still_writes_the_file_is_waited_for(node: EarlierNodeFiles) -> None:
    node.leave(COMPLETED)
    with (node.state / "cp.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Retryable, match="locked by another program"):
            await asyncio.to_thread(a_migration(node, lock_patience_s=0.0).run)
    report = await asyncio.to_thread(a_migration(node).run)
    assert report
    assert report.recorded == [UID]


async def test_a_migration_that_crashes_does_not_keep_the_agent_from_its_start(
    node: EarlierNodeFiles,
) -> None:
    def make(uid: str, entry: ClaimEntry, node: EarlierNode) -> Record:
        raise KeyError("unforeseen")

    node.leave(COMPLETED)
    earlier = EarlierNode(DRIVER, NODE, BOOT)
    with capture_logs() as lines:
        await take_over(node.state, node=earlier, observer=ClaimObserver(), make=make)
    assert [line["event"] for line in lines][-1].endswith("crashed")
    assert (node.state / "checkpoint.json").exists()


def test_a_migration_that_is_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "nvdra_testing.checkpoint_crashes", str(tmp_path)]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        check=True,
        timeout=55,
        env={"PYTHONPATH": str(SUPPORT), "PATH": "/usr/bin:/bin"},
    )
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    undisturbed, *crashes = runs
    assert len(undisturbed["files"]) == 2 + 2 * 2 + 1
    assert len(crashes) > 15
    assert all(crash["killed"] for crash in crashes)
    for crash in crashes:
        assert crash["files"] == undisturbed["files"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_whatever_happens_to_the_file_a_gpu_in_use_is_granted_to_nobody(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    node = EarlierNodeFiles(tmp_path_factory.mktemp("node"), inventory=a_node_of(4))
    node.leave(COMPLETED, cdi={UID: "gpu-0"})
    path = node.state / "checkpoint.json"
    path.write_bytes(_hurt(path.read_bytes(), data))
    agent = await node.migrated()
    assert await reason(agent, node, "gpu-0") in ("DeviceInUse", "DeviceFenced")
    assert await agent.unprepare([REF]) == {UID: None}
    assert not node.cdi.exists(UID)
    await node.close()


def _hurt(content: bytes, data: st.DataObject) -> bytes:
    """Cut off, or with some bytes changed."""
    if data.draw(st.booleans()):
        return content[: data.draw(st.integers(0, len(content)))]
    hurt = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        hurt[data.draw(st.integers(0, len(hurt) - 1))] = data.draw(st.integers(0, 255))
    return bytes(hurt)
