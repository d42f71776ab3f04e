"""What users are told of their claims: Events and conditions, against the embedded API server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from nvdra_kube.resources import RESOURCE_CLAIMS
from nvdra_nodeagent.claims.model import ClaimRef
from nvdra_nodeagent.claims.observer import Damage
from nvdra_nodeagent.errors import Permanent
from nvdra_nodeagent.reporting.reporter import MAX_WAITING
from nvdra_sim.cluster.apiserver.faults import Fault
from nvdra_testing.agent import until
from nvdra_testing.claims import DRIVER, NODE, a_ref, a_result
from nvdra_testing.reports import Desk, a_foreign_entry, a_foreign_result, an_error

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.observer import StateKind


@pytest.fixture
async def desk() -> Desk:
    return Desk()


async def foreign(desk: Desk, ref: ClaimRef) -> list[Body]:
    entries = (await desk.get(ref))["status"].get("devices", ())
    return [entry for entry in entries if entry["driver"] != DRIVER]


# Events


async def test_a_failure_is_told_to_the_claim_and_its_pods(desk: Desk) -> None:
    ref = await desk.claim(pods=("p1", "p2"))
    desk.fail(ref)
    await desk.settle()
    assert desk.recorder.short() == [
        ("DiskFull", "ResourceClaim/claim"),
        ("DiskFull", "Pod/p1"),
        ("DiskFull", "Pod/p2"),
    ]
    assert {type for type, *_ in desk.recorder.events} == {"Warning"}


async def test_an_event_says_cause_and_next_step(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ref)
    await desk.settle()
    notes = {note for *_, note in desk.recorder.events}
    assert notes == {"error preparing devices for claim: no space; free space"}


async def test_an_error_without_hint_gets_that_of_the_catalogue(desk: Desk) -> None:
    desk.fail(await desk.claim(), Permanent("ClaimReplaced", "why"))
    await desk.settle()
    assert desk.recorder.events[0][3] == "why; Delete the pod; it was made for the earlier claim."


async def test_the_next_step_stands_behind_however_long_a_cause(desk: Desk) -> None:
    desk.fail(await desk.claim(), an_error("x" * 5000))
    await desk.settle()
    note = desk.recorder.events[0][3]
    assert note.endswith("x...; free space")
    assert len(note) <= 1024


async def test_a_claim_that_is_gone_is_told_by_its_name(desk: Desk) -> None:
    desk.fail(a_ref("gone"))
    await desk.settle()
    assert desk.recorder.short() == [("DiskFull", "ResourceClaim/gone")]


async def test_the_pods_of_a_claim_that_took_the_name_are_told_nothing(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ClaimRef(ref.namespace, ref.name, "earlier"))
    await desk.settle()
    assert desk.recorder.short() == [("DiskFull", "ResourceClaim/claim")]
    assert await desk.ready(ref) == {}


async def test_a_claim_that_was_read_for_its_prepare_is_not_read_again(desk: Desk) -> None:
    ref = await desk.claim()
    await desk.see(ref)
    desk.store.faults.add(Fault(verb="get", resource="resourceclaims", status=500))
    desk.fail(ref)
    await desk.settle()
    assert ("DiskFull", "Pod/p1") in desk.recorder.short()


async def test_a_recovery_is_told_once(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ref)
    await desk.settle()
    for _ in range(2):
        await desk.see(ref)
        desk.finish(ref)
        await desk.settle()
    told = [(type, reason) for type, reason, about, _ in desk.recorder.events if "Pod" in about]
    assert told == [("Warning", "DiskFull"), ("Normal", "ClaimRecovered")]


async def test_a_claim_that_never_failed_is_not_written(desk: Desk) -> None:
    ref = await desk.claim()
    before = await desk.version(ref)
    await desk.see(ref)
    desk.finish(ref)
    desk.finish(ref, "unprepare")
    assert desk.reporter.waiting == 0
    assert (await desk.version(ref), desk.recorder.events) == (before, [])


async def test_giving_back_after_a_failed_prepare_is_no_recovery(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ref)
    await desk.settle()
    desk.finish(ref, "unprepare")
    await desk.settle()
    assert {reason for reason, _ in desk.recorder.short()} == {"DiskFull"}


async def test_a_failed_unprepare_is_told_and_so_is_its_recovery(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ref, operation="unprepare")
    await desk.settle()
    assert await desk.ready(ref) == {}
    desk.finish(ref, "unprepare")
    await desk.settle()
    assert [reason for reason, about in desk.recorder.short() if "Claim/" in about] == [
        "DiskFull",
        "ClaimRecovered",
    ]


async def test_the_newest_outcome_of_a_claim_is_told(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ref)
    desk.fail(ref, an_error("no quota"))
    assert desk.reporter.waiting == 1
    await desk.settle()
    assert all("no quota" in note for *_, note in desk.recorder.events)


async def test_a_quarantine_is_told_to_claim_and_node(desk: Desk) -> None:
    ref = await desk.claim()
    desk.reporter.quarantined(Damage(kind="record", uid=ref.uid, reason="bad checksum", ref=ref))
    await desk.settle()
    assert desk.recorder.short() == [
        ("StateQuarantined", "ResourceClaim/claim"),
        ("StateQuarantined", f"Node/{NODE}"),
    ]
    assert "bad checksum" in desk.recorder.events[0][3]


async def test_a_quarantine_of_a_claim_without_name_is_told_to_the_node(desk: Desk) -> None:
    desk.reporter.quarantined(Damage(kind="effect", uid="u-1", reason="empty file"))
    await desk.settle()
    assert desk.recorder.short() == [("StateQuarantined", f"Node/{NODE}")]


@pytest.mark.parametrize(
    ("kind", "uid", "begins"),
    [
        ("effect", "time_slice.GPU-1", "the agent's note of a GPU's setting on this node"),
        ("checkpoint", "", "the checkpoint of an earlier driver on this node"),
        ("checkpoint", "u-1", "claim u-1 of an earlier driver was not taken over: bad"),
        ("tombstone", "u-1", "the tombstone of claim u-1 on this node"),
    ],
)
async def test_a_quarantine_says_what_was_damaged(
    desk: Desk, kind: StateKind, uid: str, begins: str
) -> None:
    desk.reporter.quarantined(Damage(kind=kind, uid=uid, reason="bad"))
    await desk.settle()
    assert desk.recorder.events[0][3].startswith(begins)


async def test_what_cannot_be_undone_is_told_and_so_is_its_end(desk: Desk) -> None:
    ref = await desk.claim()
    desk.reporter.tombstone(ref, error=an_error("nvidia-smi failed"))
    await desk.settle()
    desk.reporter.tombstone(ref, error=None)
    await desk.settle()
    reasons = [reason for reason, about in desk.recorder.short() if about.startswith("Node")]
    assert reasons == ["UndoPostponed", "UndoCompleted"]


# Conditions


async def test_the_devices_of_a_failed_claim_are_not_ready(desk: Desk) -> None:
    ref = await desk.claim("gpu-0", "gpu-1")
    desk.fail(ref)
    await desk.settle()
    assert await desk.ready(ref) == {
        "gpu-0": ("False", "DiskFull"),
        "gpu-1": ("False", "DiskFull"),
    }
    assert desk.lost == []


async def test_the_devices_of_a_recovered_claim_are_ready(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ref)
    await desk.settle()
    await desk.see(ref)
    desk.finish(ref)
    await desk.settle()
    assert await desk.ready(ref) == {"gpu-0": ("True", "Prepared")}


async def test_a_failure_that_an_earlier_agent_told_is_taken_back(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ref)
    await desk.settle()
    later = Desk()
    later.api = desk.api
    later.reporter = type(desk.reporter)(
        desk.api, driver=DRIVER, node=NODE, recorder=later.recorder
    )
    later.reporter.seen(ref, await desk.get(ref))
    later.finish(ref)
    await later.settle()
    assert await desk.ready(ref) == {"gpu-0": ("True", "Prepared")}
    assert ("ClaimRecovered", "Pod/p1") in later.recorder.short()


async def test_a_repeated_failure_is_not_written_again(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ref)
    await desk.settle()
    before = await desk.version(ref)
    desk.fail(ref)
    await desk.settle()
    assert await desk.version(ref) == before


async def test_another_failure_keeps_the_time_of_the_first(desk: Desk) -> None:
    ref = await desk.claim()
    await _with_condition(desk, ref, status="False", lastTransitionTime="2020-01-01T00:00:00Z")
    desk.fail(ref, an_error("no quota"))
    await desk.settle()
    [entry] = (await desk.get(ref))["status"]["devices"]
    [condition] = entry["conditions"]
    assert condition["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert "no quota" in condition["message"]


async def test_what_others_say_of_devices_is_left_alone(desk: Desk) -> None:
    ref = await desk.claim("gpu-0", a_foreign_result())
    theirs = a_foreign_entry(networkData={"interfaceName": "eth1"})
    other = {"type": "Healthy", "status": "True", "reason": "Ok", "message": "",
             "lastTransitionTime": "2020-01-01T00:00:00Z"}  # fmt: skip
    ours = {"driver": DRIVER, "pool": NODE, "device": "gpu-0", "data": {"x": 1},
            "networkData": {"interfaceName": "ib0"}, "conditions": [other]}  # fmt: skip
    await _write_devices(desk, ref, [theirs, ours])
    desk.fail(ref)
    await desk.settle()
    entries = {e["device"]: e for e in (await desk.get(ref))["status"]["devices"]}
    assert entries["nic-0"] == theirs
    assert (entries["gpu-0"]["data"], entries["gpu-0"]["networkData"]) == (
        ours["data"],
        ours["networkData"],
    )
    assert {c["type"] for c in entries["gpu-0"]["conditions"]} == {"Healthy", "Ready"}


async def test_shares_of_a_device_have_a_condition_each(desk: Desk) -> None:
    shares = [f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2)]
    ref = await desk.claim(*(a_result(shareID=share) for share in shares))
    desk.fail(ref)
    await desk.settle()
    entries = (await desk.get(ref))["status"]["devices"]
    assert sorted(entry["shareID"] for entry in entries) == shares


async def test_a_device_that_two_requests_have_is_written_once(desk: Desk) -> None:
    ref = await desk.claim(a_result(), a_result(adminAccess=True))
    desk.fail(ref)
    await desk.settle()
    assert len((await desk.get(ref))["status"]["devices"]) == 1


async def test_devices_of_another_node_are_left_alone(desk: Desk) -> None:
    ref = await desk.claim({**a_result("gpu-5"), "pool": "node-b"})
    desk.fail(ref)
    await desk.settle()
    assert await desk.ready(ref) == {}
    assert ("DiskFull", "Pod/p1") in desk.recorder.short()


async def test_a_claim_that_was_deallocated_meanwhile_is_told_by_events_only(desk: Desk) -> None:
    ref = await desk.claim()
    await desk.see(ref)
    body = await desk.get(ref)
    await desk.api.update(RESOURCE_CLAIMS, {**body, "status": {}}, subresource="status")
    desk.fail(ref)
    await desk.settle()
    assert "devices" not in (await desk.get(ref)).get("status", {})
    assert (desk.lost, len(desk.recorder.events)) == (["conditions"], 2)


@pytest.mark.parametrize(
    ("policy", "ready"),
    [("never", {}), ("failures", {}), ("always", {"gpu-0": ("True", "Prepared")})],
)
async def test_whether_success_is_written_can_be_chosen(policy: Any, ready: object) -> None:
    desk = Desk(conditions=policy)
    ref = await desk.claim()
    await desk.see(ref)
    desk.finish(ref)
    await desk.settle()
    assert (await desk.ready(ref), desk.recorder.events) == (ready, [])


async def test_who_wants_no_conditions_gets_events_only() -> None:
    desk = Desk(conditions="never")
    ref = await desk.claim()
    desk.fail(ref)
    await desk.settle()
    assert (await desk.ready(ref), len(desk.recorder.events), desk.lost) == ({}, 2, [])


# Trouble


@pytest.mark.parametrize("status", [403, 415, 405])
async def test_a_server_that_refuses_conditions_is_left_alone(desk: Desk, status: int) -> None:
    fault = desk.store.faults.add(
        Fault(verb="patch", resource="resourceclaims", subresource="status", status=status)
    )
    for name in ("one", "two"):
        desk.fail(await desk.claim(name=name))
        await desk.settle()
    assert fault.struck == 1
    assert desk.lost == ["conditions", "conditions"]
    assert len(desk.recorder.events) == 4


async def test_a_server_that_drops_conditions_is_left_alone(desk: Desk) -> None:
    fault = desk.store.faults.add(
        Fault(verb="patch", resource="resourceclaims", drop_fields=("status.devices",))
    )
    for name in ("one", "two"):
        desk.fail(await desk.claim(name=name))
        await desk.settle()
    assert (fault.struck, desk.lost) == (1, ["conditions", "conditions"])


async def test_a_server_in_trouble_gets_the_report_later(desk: Desk) -> None:
    ref = await desk.claim()
    desk.store.faults.add(Fault(verb="patch", resource="resourceclaims", status=503, count=2))
    desk.fail(ref)
    await desk.settle()
    assert await desk.ready(ref) == {"gpu-0": ("False", "DiskFull")}
    assert len(desk.recorder.events) == 2


async def test_a_claim_that_cannot_be_read_now_is_told_later(desk: Desk) -> None:
    ref = await desk.claim()
    desk.store.faults.add(Fault(verb="get", resource="resourceclaims", status=503, count=1))
    desk.fail(ref)
    await desk.settle()
    assert ("DiskFull", "Pod/p1") in desk.recorder.short()


async def test_a_newer_outcome_replaces_one_that_is_being_written(desk: Desk) -> None:
    ref = await desk.claim()
    await desk.see(ref)
    fault = desk.store.faults.add(Fault(verb="patch", resource="resourceclaims", latency_s=0.05))
    desk.fail(ref)
    async with desk.running():
        await until(lambda: fault.struck)
        desk.finish(ref)
        await until(lambda: not desk.reporter.waiting)
    assert await desk.ready(ref) == {"gpu-0": ("True", "Prepared")}


async def test_the_queue_is_bounded_and_says_what_it_lost(desk: Desk) -> None:
    for index in range(MAX_WAITING + 3):
        desk.fail(a_ref(f"c{index}"))
    assert desk.reporter.waiting == MAX_WAITING
    assert desk.lost == ["event", "conditions"] * 3


async def test_a_claim_of_odd_shape_hurts_nobody(desk: Desk) -> None:
    ref, other = a_ref("odd"), await desk.claim()
    desk.reporter.seen(ref, {"metadata": {"uid": ref.uid}, "status": {"devices": [{"driver": 1}]}})
    desk.finish(ref)
    desk.reporter.seen(ref, {"metadata": {"uid": ref.uid}, "status": {"reservedFor": [7]}})
    desk.fail(ref)
    desk.fail(other)
    await desk.settle()
    assert ("DiskFull", "Pod/p1") in desk.recorder.short()


async def test_draining_writes_what_waits(desk: Desk) -> None:
    ref = await desk.claim()
    desk.fail(ref)
    await desk.reporter.drain()
    assert await desk.ready(ref) == {"gpu-0": ("False", "DiskFull")}
    assert (desk.reporter.waiting, desk.lost) == (0, [])


async def test_draining_ends_when_the_server_does_not_answer(desk: Desk) -> None:
    desk.store.faults.add(Fault(verb="patch", resource="resourceclaims", hang=True))
    ref = await desk.claim()
    await desk.see(ref)
    desk.fail(ref)
    await desk.reporter.drain(timeout_s=0.05)
    assert (desk.reporter.waiting, desk.lost) == (0, ["conditions"])


async def test_a_report_outlives_the_end_of_the_writing_task(desk: Desk) -> None:
    ref = await desk.claim()
    fault = desk.store.faults.add(Fault(verb="patch", resource="resourceclaims", hang=True))
    desk.fail(ref)
    async with desk.running():
        await until(lambda: fault.struck)
    desk.store.faults.remove(fault)
    await desk.reporter.drain()
    assert await desk.ready(ref) == {"gpu-0": ("False", "DiskFull")}
    assert len(desk.recorder.events) == 2


async def test_a_reporter_that_is_alive_turns(desk: Desk) -> None:
    assert desk.reporter.last_turn_s == 0
    async with desk.running():
        await until(lambda: desk.reporter.last_turn_s > 0)
        turned_s = desk.reporter.last_turn_s
        desk.fail(await desk.claim())
        await until(lambda: desk.reporter.last_turn_s > turned_s)


async def _write_devices(desk: Desk, ref: ClaimRef, devices: list[Body]) -> None:
    body = await desk.get(ref)
    status = {**body["status"], "devices": devices}
    await desk.api.update(RESOURCE_CLAIMS, {**body, "status": status}, subresource="status")


async def _with_condition(desk: Desk, ref: ClaimRef, **fields: str) -> None:
    condition = {"type": "Ready", "reason": "DiskFull", "message": "", **fields}
    entry = {"driver": DRIVER, "pool": NODE, "device": "gpu-0", "conditions": [condition]}
    await _write_devices(desk, ref, [entry])
    await asyncio.sleep(0)
