"""What the daemon makes of nvidia-imex-ctl's answers, and what it tells others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.imex import probes
from nvdra_nodeagent.imex.lifecycle import Process, Timings
from nvdra_nodeagent.imex.plan import Halt, Run, Stay
from nvdra_nodeagent.imex.status import Answer, Verdict, Watch, domain_health, verdict
from nvdra_testing.imex import a_run

T = Timings()
READY = Answer(0, b"READY\n")
TIMED_OUT = Answer(None, b"")


def heard(*answers: Answer, watch: Watch | None = None) -> Watch:
    found = watch or Watch()
    for answer in answers:
        found = found.heard(answer, now=0.0, timings=T)
    return found


def judged(watch: Watch, process: Process | None = None, **kwargs: Any) -> Verdict:
    process = process or Process().started(a_run(), now=0.0)
    wanted = kwargs.pop("wanted", a_run())
    return verdict(wanted, process, watch, trouble=kwargs.pop("trouble", None))


def test_ready_is_exactly_one_line() -> None:
    assert judged(heard(READY)) == Verdict(True, "Ready")


@pytest.mark.parametrize(
    "output", [b"READY", b"READY\r\n", b" READY\n", b"warning: old\nREADY\n", b"NOT READY\n", b"\n"]
)
def test_anything_else_is_not_ready(output: bytes) -> None:
    assert not judged(heard(Answer(0, output))).ready


def test_ready_with_a_bad_exit_status_is_not_ready() -> None:
    assert not judged(heard(Answer(1, b"READY\n"))).ready


def test_the_state_that_it_says_is_the_reason() -> None:
    found = judged(heard(Answer(0, b"WAITING_FOR_RECOVERY\n")))
    assert found == Verdict(False, "ImexNotReady", "nvidia-imex is WAITING_FOR_RECOVERY")


def test_one_missing_answer_is_forgiven_two_are_not() -> None:
    assert judged(heard(READY, TIMED_OUT)).ready
    assert not judged(heard(READY, TIMED_OUT, TIMED_OUT)).ready
    assert not judged(heard(READY, Answer(0, b"SHUTTING_DOWN\n"))).ready


def test_until_ready_it_is_asked_often_and_then_rarely() -> None:
    starting = heard(*[Answer(0, b"INITIALIZING\n")] * 30)
    assert heard(Answer(0, b"INITIALIZING\n")).next_at < 0.1
    assert starting.next_at == T.query_unready_cap_s
    assert heard(READY, watch=starting).next_at == T.query_ready_s
    assert heard(TIMED_OUT, watch=heard(READY)).next_at < T.query_ready_s


def test_a_program_that_cannot_be_asked_says_why() -> None:
    found = judged(heard(Answer(127, b"nvidia-imex-ctl is not on PATH")))
    assert found.reason == "ImexStarting"
    assert "not on PATH" in found.detail


@pytest.mark.parametrize(
    ("wanted", "process", "expected"),
    [
        (Halt("NoFabric", idle=True), Process(), (True, "NoFabric")),
        (Halt("Superseded"), Process(), (False, "Superseded")),
        (Halt("Stopping"), Process().started(a_run(), now=0), (False, "Stopping")),
        (Stay("NoPeers"), Process(), (False, "NoPeers")),
        (a_run(), Process().started(a_run(), now=0).stopping(now=1), (False, "ImexStopping")),
        (a_run(), Process(), (False, "ImexMissing")),
    ],
)
def test_the_reason_is_what_keeps_it_from_being_ready(
    wanted: Any, process: Process, expected: tuple[bool, str]
) -> None:
    trouble = Verdict(False, "ImexMissing", "not on PATH")
    found = judged(heard(READY), process, wanted=wanted, trouble=trouble)
    assert (found.ready, found.reason) == expected


def test_a_running_process_stays_ready_while_inputs_are_unusable() -> None:
    assert judged(heard(READY), wanted=Stay("BadPeers", "no JSON")).ready


RUN = Run(a_run(own=0).launch, (), ((0, 0), (1, 1)), 1)


def domain(*states: str, link: str = "CONNECTED") -> Answer:
    """Four lines in the nodes file, of which the first are members."""
    nodes = {
        str(line): {
            "status": states[line] if line < len(states) else "UNAVAILABLE",
            "host": f"10.0.0.{line}",
            "connections": {
                str(other): {"status": link if other < len(states) else "NEVER_CONNECTED"}
                for other in range(4)
            },
        }
        for line in range(4)
    }
    return Answer(0, json.dumps({"nodes": nodes, "status": "DEGRADED"}).encode())


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (domain("READY", "READY"), "UP"),
        (domain("READY", "INITIALIZING"), "DEGRADED"),
        (domain("READY", "READY", link="RECOVERING"), "DEGRADED"),
        (domain("INITIALIZING", "READY"), "DOWN"),
        (Answer(1, b"UNAVAILABLE\n"), "UNKNOWN"),
        (Answer(0, b"[]"), "UNKNOWN"),
        (Answer(0, b'{"nodes": []}'), "UNKNOWN"),
        (TIMED_OUT, "UNKNOWN"),
    ],
)
def test_only_members_make_the_state_of_the_domain(answer: Answer, state: str) -> None:
    assert domain_health(answer, RUN).state == state


def test_health_names_nodes_by_their_index_also_where_lines_have_no_gaps() -> None:
    run = Run(a_run(own=3).launch, (), ((0, 1), (1, 3)), 1)
    found = domain_health(domain("READY", "READY"), run)
    assert [(node.slot, node.host) for node in found.nodes] == [(1, "10.0.0.0"), (3, "10.0.0.1")]
    assert found.state == "UP"


@given(st.binary() | st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(
    st.sampled_from(["nodes", "0", "1", "connections", "status", "host"]), inner)).map(
    lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_the_domain_query_prints_is_judged(output: bytes) -> None:
    assert domain_health(Answer(0, output), RUN).state in ("UP", "DEGRADED", "DOWN", "UNKNOWN")


NOT_READY = Verdict(False, "NoPeers", "none yet")


@pytest.mark.parametrize(
    ("request_line", "verdict", "started", "expected"),
    [
        ("GET /ready HTTP/1.1", Verdict(True, "Ready"), True, (200, "Ready")),
        ("GET /ready HTTP/1.1", NOT_READY, True, (503, "NoPeers: none yet")),
        ("GET /startup HTTP/1.1", NOT_READY, False, (503, "NoPeers: none yet")),
        ("GET /startup HTTP/1.1", NOT_READY, True, (200, "NoPeers: none yet")),
        ("GET /live?x=1 HTTP/1.1", NOT_READY, False, (200, "NoPeers: none yet")),
        ("POST /ready HTTP/1.1", Verdict(True, "Ready"), True, (405, "only GET")),
    ],
)
def test_probes_tell_the_truth_of_now(
    request_line: str, verdict: Verdict, started: bool, expected: tuple[int, str]
) -> None:
    assert probes.answer(request_line, verdict=verdict, started=started) == expected


def test_a_daemon_whose_loop_does_not_get_through_is_not_alive() -> None:
    broken = Verdict(False, probes.INTERNAL_ERROR, "KeyError: 1")
    found = probes.answer("GET /live HTTP/1.1", verdict=broken, started=True)
    assert found == (503, "InternalError: KeyError: 1")


@given(st.text())
def test_any_request_line_has_an_answer(line: str) -> None:
    assert probes.answer(line, verdict=NOT_READY, started=False)[0] in (200, 404, 405, 503)
