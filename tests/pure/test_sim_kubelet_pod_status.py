"""What a Pod's status says for each state of its containers."""

from __future__ import annotations

from typing import Any

import pytest

from nvdra_sim.cluster.kubelet.pod_status import (
    START_ERROR,
    ContainerRecord,
    Running,
    Terminated,
    Waiting,
    current_phase,
    final_phase,
    pod_status,
    records_of,
    should_restart,
)

NOW = "2026-01-01T00:00:00Z"


def ended(code: int) -> Terminated:
    return Terminated(code, "Error" if code else "Completed", NOW, NOW)


def a_record(state: Any = None, *, init: bool = False, **fields: Any) -> ContainerRecord:
    return ContainerRecord("c", "ubuntu", init=init, state=state or Waiting(), **fields)


@pytest.mark.parametrize(
    ("policy", "code", "init", "again"),
    [
        ("Always", 0, False, True),
        ("Always", 1, False, True),
        ("Always", 0, True, False),
        ("Always", 1, True, True),
        ("OnFailure", 0, False, False),
        ("OnFailure", 1, False, True),
        ("OnFailure", 1, True, True),
        ("Never", 0, False, False),
        ("Never", 1, False, False),
        ("Never", 1, True, False),
    ],
)
def test_the_restart_policy_decides(policy: str, code: int, init: bool, again: bool) -> None:
    assert should_restart(policy, code, init=init) is again


def test_a_pod_is_pending_until_a_main_container_has_run() -> None:
    assert current_phase([a_record(Running(NOW), init=True), a_record()]) == "Pending"
    assert current_phase([a_record(Running(NOW))]) == "Running"


def test_a_container_between_two_starts_leaves_its_pod_running() -> None:
    assert current_phase([a_record(Waiting("CrashLoopBackOff"), last=ended(1))]) == "Running"


def test_a_pod_succeeds_only_when_every_container_did() -> None:
    assert final_phase([a_record(ended(0)), a_record(ended(0))]) == "Succeeded"
    assert final_phase([a_record(ended(0)), a_record(ended(1))]) == "Failed"
    assert final_phase([a_record(ended(0)), a_record()]) == "Failed"


def conditions(*records: ContainerRecord, **fields: Any) -> dict[str, Any]:
    options = {"phase": "Running", "start_time": NOW, "conditions": [], **fields}
    status = pod_status(records, **options)
    return {entry["type"]: entry for entry in status["conditions"]}


def test_ready_needs_every_main_container_running() -> None:
    assert conditions(a_record(Running(NOW)))["Ready"]["status"] == "True"
    half = conditions(a_record(Running(NOW)), a_record())["Ready"]
    assert (half["status"], half["reason"]) == ("False", "ContainersNotReady")


def test_a_finished_pod_is_not_ready_because_it_is_completed() -> None:
    ready = conditions(a_record(ended(0)), phase="Succeeded")["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")


def test_conditions_of_others_are_kept_and_times_change_only_with_the_status() -> None:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "then"}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "then"}
    renewed = conditions(a_record(Running(NOW)), conditions=[scheduled, ready])
    assert renewed["PodScheduled"] == scheduled
    assert renewed["Ready"]["lastTransitionTime"] == "then"
    assert renewed["ContainersReady"]["lastTransitionTime"] != "then"


def test_init_containers_have_their_own_list_and_must_have_succeeded() -> None:
    records = [a_record(ended(1), init=True), a_record()]
    status = pod_status(records, phase="Pending", start_time=NOW, conditions=[])
    assert len(status["initContainerStatuses"]) == len(status["containerStatuses"]) == 1
    assert conditions(*records)["Initialized"]["status"] == "False"


def test_a_container_status_shows_state_last_state_and_restarts() -> None:
    record = a_record(Waiting("CrashLoopBackOff", "why"), last=ended(2), restarts=3)
    body = record.body()
    assert body["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "why"}}
    assert body["lastState"]["terminated"]["exitCode"] == 2
    assert (body["restartCount"], body["ready"], body["image"]) == (3, False, "ubuntu")


def test_records_begin_with_the_init_containers() -> None:
    pod = {"spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}}
    assert [(record.name, record.init) for record in records_of(pod)] == [("i", True), ("c", False)]


def test_a_pod_whose_command_was_never_started_was_never_running() -> None:
    refused = Terminated(128, START_ERROR, NOW, NOW, "executable file not found")
    assert current_phase([a_record(refused)]) == "Pending"
    assert current_phase([a_record(ended(1))]) == "Running"
