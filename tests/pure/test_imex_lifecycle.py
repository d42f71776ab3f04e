"""When nvidia-imex is started, told, stopped and killed; the time is given, not waited for."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from nvdra_nodeagent.imex import lifecycle
from nvdra_nodeagent.imex.lifecycle import KILL, SIGNAL, START, STOP, WAIT, Process, Timings
from nvdra_nodeagent.imex.logs import Log
from nvdra_nodeagent.imex.plan import Halt, Stay
from nvdra_nodeagent.imex.supervisor import Supervisor
from nvdra_testing.imex import a_run

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.imex.plan import Desire

T = Timings()


def move(process: Process, wanted: Desire, *, now: float, leaving: bool = False) -> str:
    found = lifecycle.next_move(process, wanted, now=now, timings=T, leaving=leaving)
    assert found.action != WAIT or found.at > now
    return found.action


def running(*, since: float = 0.0) -> Process:
    return Process().started(a_run(), now=since)._replace(answered_at=since)


def test_it_starts_as_soon_as_it_is_wanted() -> None:
    assert move(Process(), a_run(), now=0.0) == START
    assert move(Process(), Stay("NoPeers"), now=0.0) == WAIT
    assert move(Process(), Halt("NoFabric", idle=True), now=0.0) == WAIT


def test_it_keeps_running_while_there_is_nothing_new() -> None:
    assert move(running(), a_run(), now=10.0) == WAIT
    assert move(running(), Stay("WaitingForOwnEntry"), now=10.0) == WAIT


def test_it_is_stopped_for_another_start_or_when_it_must_not_run() -> None:
    assert move(running(), a_run(own=1), now=1.0) == STOP
    assert move(running(), a_run(nodes="others"), now=1.0) == STOP
    assert move(running(), Halt("Superseded"), now=1.0) == STOP


def test_one_that_does_not_stop_is_killed_after_the_deadline_once() -> None:
    stopping = running().stopping(now=100.0)
    assert move(stopping, a_run(), now=100.0 + T.stop_s - 0.1) == WAIT
    assert move(stopping, a_run(), now=100.0 + T.stop_s) == KILL
    assert move(stopping._replace(killed=True), a_run(), now=1000.0) == WAIT


def test_a_daemon_that_leaves_gives_more_time_but_less_than_the_pod_has() -> None:
    stopping = running().stopping(now=0.0)
    assert move(stopping, Halt("Stopping"), now=T.stop_s, leaving=True) == WAIT
    assert move(stopping, Halt("Stopping"), now=T.shutdown_stop_s, leaving=True) == KILL
    assert T.shutdown_stop_s < T.give_up_s < 30.0


def test_a_restart_that_was_asked_for_does_not_wait() -> None:
    ended = running().stopping(now=5.0).ended(now=6.0, timings=T)
    assert move(ended, a_run(own=1), now=6.0) == START


def test_crashes_make_the_pause_longer_up_to_a_limit() -> None:
    process, now, pauses = Process(), 0.0, []
    for _ in range(12):
        process = process.started(a_run(), now=now).ended(now=now, timings=T)
        pauses.append(process.retry_at - now)
        assert move(process, a_run(), now=now) == WAIT
        now = process.retry_at
        assert move(process, a_run(), now=now) == START
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses[-1] == T.backoff_cap_s


def test_a_crash_after_a_long_life_counts_as_the_first() -> None:
    before = Process(failures=9).started(a_run(), now=0.0)
    assert before.ended(now=T.stable_s, timings=T).retry_at == T.stable_s + T.backoff_s


def test_one_that_never_answers_is_restarted() -> None:
    assert move(running(), a_run(), now=T.hang_s - 1) == WAIT
    assert move(running(), a_run(), now=T.hang_s) == STOP


def test_time_in_which_nobody_looked_is_no_silence() -> None:
    thawed = running().unwatched(T.hang_s).unwatched(5.0)
    assert move(thawed, a_run(), now=2 * T.hang_s + 4) == WAIT
    assert move(thawed, a_run(), now=2 * T.hang_s + 5) == STOP
    heard = thawed.answered(now=1000.0)
    assert move(heard, a_run(), now=1000.0 + T.hang_s) == STOP


def test_changed_names_are_told_after_a_moment() -> None:
    changed = running().names_changed(now=10.0)
    assert move(changed, a_run(names="b"), now=10.0) == WAIT
    assert move(changed, a_run(names="b"), now=10.0 + T.signal_settle_s) == SIGNAL


def test_a_second_change_is_told_when_the_process_listens_again() -> None:
    told = running().names_changed(now=10.0).signalled(a_run(names="b"), now=10.0)
    changed = told.names_changed(now=11.0)
    assert move(changed, a_run(names="c"), now=14.9) == WAIT
    assert move(changed, a_run(names="c"), now=10.0 + T.signal_spacing_s) == SIGNAL


def test_names_that_changed_and_changed_back_are_told_too() -> None:
    changed = running().names_changed(now=10.0)
    assert move(changed, a_run(), now=20.0) == SIGNAL


def test_one_that_has_not_answered_yet_is_not_told_at_once() -> None:
    changed = Process().started(a_run(), now=0.0).names_changed(now=0.1)
    assert move(changed, a_run(names="b"), now=2.0) == WAIT
    assert move(changed._replace(answered_at=2.0), a_run(names="b"), now=2.0) == SIGNAL
    assert move(changed, a_run(names="b"), now=T.signal_spacing_s) == SIGNAL


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=40))
def test_however_names_change_signals_keep_their_distance_and_the_last_change_is_told(
    gaps: list[float],
) -> None:
    """Times of changes in, times of signals out, by the decisions alone."""
    process, now, signals, changed = running(), 0.0, [], 0.0
    events = [*gaps, 0.0]
    for number, gap in enumerate(events):
        end = now + gap if number < len(gaps) else now + 60.0
        while (
            found := lifecycle.next_move(process, a_run(), now=now, timings=T)
        ).action == SIGNAL or found.at <= end:
            now = max(now, found.at if found.action == WAIT else now)
            if found.action == SIGNAL:
                signals.append(now)
                process = process.signalled(a_run(), now=now)._replace(answered_at=now)
        now = end
        if number < len(gaps):
            process = process._replace(answered_at=now).names_changed(now=now)
            changed = now
    assert all(b - a >= T.signal_spacing_s - 1e-6 for a, b in itertools.pairwise(signals))
    assert signals[-1] >= changed


def test_the_distance_of_signals_counts_from_when_one_was_sent(tmp_path: Path) -> None:
    """A turn that began earlier, and wrote to a slow disk before, makes it no shorter."""
    program, hosts = tmp_path / "imex", tmp_path / "hosts"
    program.write_text("#!/bin/sh\ntrap '' USR1\nexec sleep 60\n")
    program.chmod(0o755)
    hosts.write_text("")
    times = iter((100.0, 103.0))
    supervisor = Supervisor(
        program=str(program),
        directory=str(tmp_path),
        hosts=str(hosts),
        clock=lambda: next(times),
        timings=T,
        log=Log(write=lambda line: None),
    )
    try:
        supervisor.advance(a_run(), now=99.0, leaving=False)
        assert supervisor.process.started_at == 100.0
        supervisor.answered(now=100.0)
        supervisor.process = supervisor.process.names_changed(now=101.0)
        supervisor.advance(a_run(), now=106.0, leaving=False)
        assert supervisor.process.signalled_at == 103.0
    finally:
        supervisor.abandon()
        os.waitpid(supervisor._pid or 0, 0)
