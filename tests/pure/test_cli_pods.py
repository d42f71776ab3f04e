"""What the command says of pods: which run, why others do not, and how long to wait for them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from nvdra_cli.narration import Narrator
from nvdra_cli.pods import ClaimView, ClusterView, DeviceView, PodView, pod_views
from nvdra_cli.report import Report, print_report
from nvdra_cli.watching import CALM_S, ENDING_S, QUIET_S, RETRIES_S, wait_s

Body = dict[str, Any]
NEVER_S = float("inf")

CRASHED = {"terminated": {"exitCode": 3}}
COMPLETED = {"terminated": {"exitCode": 0}}
BACKING_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "restarting"}}
DEVICE = {"driver": "gpu.nvidia.com", "pool": "node-1", "device": "gpu-0", "request": "gpu"}
ALLOCATED = {"status": {"allocation": {"devices": {"results": [DEVICE]}}}}


BY_NAME = {"name": "gpu", "resourceClaimName": "c"}
BY_TEMPLATE = {"name": "gpu", "resourceClaimTemplateName": "t"}


def seen(status: Body, *, node: str = "node-1", claim: Body | None = None, **view: Any) -> PodView:
    """How a pod with this status is seen, in a cluster where nothing else is."""
    spec = {
        "containers": [{"name": "main"}],
        "nodeName": node,
        "resourceClaims": [claim or BY_NAME],
    }
    metadata = {"namespace": "default", "name": "p", "uid": "u"}
    pods = {("default", "p"): {"metadata": metadata, "spec": spec, "status": status}}
    empty: Body = {"claims": {}, "allocated_claims": {}, "slices": {}, "events": {}}
    return pod_views(ClusterView(pods=pods, workloads={}, **{**empty, **view}))[0]


def container(state: Body, last: Body | None = None) -> list[Body]:
    return [{"name": "main", "state": state, "lastState": last or {}, "restartCount": 1}]


def warning(number: int, reason: str, message: str) -> Body:
    return {
        "metadata": {"resourceVersion": str(number)},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "involvedObject": {"uid": "u"},
    }


def a_pod(phase: str = "Running", reason: str = "", **fields: Any) -> PodView:
    values: Body = {
        "namespace": "default",
        "name": "p",
        "node": "node-1",
        "claims": (),
        "containers": ("main",),
        "ends_by_itself": False,
    }
    return PodView(phase=phase, reason=reason, **{**values, **fields})


def test_a_pod_that_crashes_again_and_again_does_not_run() -> None:
    pod = seen({"phase": "Running", "containerStatuses": container(BACKING_OFF, CRASHED)})
    assert not pod.runs
    assert pod.reason == "container main ended with exit code 3 (CrashLoopBackOff)"


def test_a_pod_that_is_started_again_after_success_runs() -> None:
    pod = seen({"phase": "Running", "containerStatuses": container(BACKING_OFF, COMPLETED)})
    assert pod.runs


def test_a_pod_with_a_failed_container_does_not_run_before_its_phase_says_so() -> None:
    assert not seen({"phase": "Running", "containerStatuses": container(CRASHED)}).runs


def test_a_failed_init_container_is_named_and_its_log_is_shown() -> None:
    status = {"phase": "Failed", "initContainerStatuses": [{"name": "setup", "state": CRASHED}]}
    pod = seen(status)
    assert pod.reason == "container setup ended with exit code 3"
    assert pod.containers == ("setup", "main")


def test_why_a_container_cannot_be_created_is_the_reason() -> None:
    state = {"waiting": {"reason": "CreateContainerError", "message": "no such CDI device"}}
    pod = seen({"phase": "Pending", "containerStatuses": container(state)})
    assert pod.reason == "container main: CreateContainerError: no such CDI device"


def test_of_kubelet_and_driver_the_kubelet_is_quoted() -> None:
    told = warning(2, "InvalidConfig", "wrong")
    events = {
        ("default", "k"): warning(1, "FailedPrepareDynamicResources", "wrong [InvalidConfig]"),
        ("default", "d"): {**told, "source": {"component": "gpu.nvidia.com"}},
    }
    assert seen({"phase": "Pending"}, events=events).reason == "wrong [InvalidConfig]"


def test_what_the_scheduler_said_is_no_reason_once_the_pod_has_a_node() -> None:
    events = {("default", "e"): warning(1, "FailedScheduling", "0/1 nodes are available")}
    assert seen({"phase": "Pending"}, events=events).reason == ""
    assert seen({"phase": "Pending"}, events=events, node="").reason == "0/1 nodes are available"


def test_that_no_claim_can_be_made_says_more_than_that_it_is_waited_for() -> None:
    waiting = {"type": "PodScheduled", "status": "False", "message": "waiting for a claim"}
    events = {("default", "e"): warning(1, "FailedResourceClaimCreation", "no such template")}
    status = {"phase": "Pending", "conditions": [waiting]}
    assert seen(status, events=events, node="", claim=BY_TEMPLATE).reason == "no such template"


def test_that_a_claim_could_not_be_made_at_first_is_no_reason_once_it_was_made() -> None:
    verdict = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    events = {("default", "e"): warning(1, "FailedResourceClaimCreation", "no such template")}
    made = [{"name": "gpu", "resourceClaimName": "p-gpu-1"}]
    status = {"phase": "Pending", "conditions": [verdict], "resourceClaimStatuses": made}
    pod = seen(status, events=events, node="", claim=BY_TEMPLATE)
    assert pod.reason == "0/1 nodes are available"


def test_of_two_warnings_in_one_second_the_later_one_counts() -> None:
    events = {
        ("default", "a"): warning(10, "FailedPrepare", "new"),
        ("default", "b"): warning(9, "FailedPrepare", "old"),
    }
    assert seen({"phase": "Pending"}, events=events).reason == "new"


def test_a_pod_that_ended_is_shown_with_the_devices_that_it_had() -> None:
    former = {("default", "c"): ALLOCATED}
    pod = seen({"phase": "Succeeded"}, allocated_claims=former)
    assert [device.device for device in pod.claims[0].devices] == ["gpu-0"]


def test_a_pod_that_waits_is_not_shown_with_devices_of_before() -> None:
    former = {("default", "c"): ALLOCATED}
    assert not seen({"phase": "Pending"}, allocated_claims=former).claims[0].devices


RUNNING = a_pod()
SHORT = a_pod(ends_by_itself=True)
UNSCHEDULABLE = a_pod("Pending", "0/1 nodes are available", node="")
FAILED = a_pod("Failed", "container main ended with exit code 1")
UNPREPARED = a_pod("Pending", "the driver does not answer")
MISCONFIGURED = a_pod("Pending", "unknown field [InvalidConfig]")


@pytest.mark.parametrize(
    ("pods", "patience_s"),
    [
        ([RUNNING], CALM_S),
        ([a_pod("Succeeded")], CALM_S),
        ([RUNNING, SHORT], ENDING_S),
        ([RUNNING, UNSCHEDULABLE], QUIET_S),
        ([RUNNING, FAILED], CALM_S),
        ([SHORT, FAILED], ENDING_S),
        ([FAILED, UNSCHEDULABLE], QUIET_S),
        ([SHORT, UNSCHEDULABLE], NEVER_S),
        ([a_pod("Pending")], NEVER_S),
        ([UNPREPARED], RETRIES_S),
        ([MISCONFIGURED], CALM_S),
        ([], QUIET_S),
    ],
)
def test_patience_depends_on_what_may_still_happen(pods: list[PodView], patience_s: float) -> None:
    assert wait_s(pods, missing=False) == patience_s


def test_running_pods_are_not_all_while_some_are_still_to_be_made() -> None:
    assert wait_s([RUNNING], missing=True) == QUIET_S


def test_changes_of_what_is_in_the_way_of_a_waiting_pod_are_not_told() -> None:
    out = io.StringIO()
    narrator = Narrator(Console(file=out, width=200), since_s=0.0)
    for claim in ("a", "b"):
        narrator.pod_changed(
            a_pod("Pending", f"0/1 nodes are available: gpu-0: in use by {claim}", node="")
        )
    assert out.getvalue().count("\n") == 1


def test_progress_that_cannot_be_written_does_not_end_the_run() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    Narrator(Console(file=Full()), since_s=0.0).say("control plane ready")


def printed(report: Report) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    return out.getvalue()


def test_of_a_long_log_the_end_is_shown_and_what_is_left_out_is_said() -> None:
    log = "".join(f"line {number}\n" for number in range(5000))
    text = printed(Report([RUNNING], {RUNNING.key: {"main": log}}, {}, 1.0))
    assert "(4000 lines before these; --json has all)" in text
    assert "line 4999" in text
    assert "line 3999\n" not in text


def test_pods_that_nobody_made_are_a_failure() -> None:
    report = Report([RUNNING], {}, {}, 1.0, missing=2)
    assert not report.succeeded
    assert "never made: 2" in printed(report)


def test_an_empty_claim_still_has_its_name_in_the_table() -> None:
    device = DeviceView("gpu.nvidia.com", "node-1", "gpu-0", "gpu", "GPU-1")
    pod = a_pod(claims=(ClaimView("none", ()), ClaimView("one", (device,))))
    text = printed(Report([pod], {}, {}, 1.0))
    assert "one" in text
    assert "gpu-0" in text
