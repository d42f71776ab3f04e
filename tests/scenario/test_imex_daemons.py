"""ComputeDomain daemons as real processes, with simulated nvidia-imex, on loopback addresses."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from nvdra_testing.imex import NAME, QUICK, Domain, a_domain, is_running, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nvdra_testing.imex import DaemonBox


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    with a_domain(tmp_path) as found:
        yield found


def until_domain_is(box: DaemonBox, state: str) -> None:
    until(lambda: box.read("domain.json").get("state") == state, f"the domain is {state}")


def until_read(box: DaemonBox, generation: int) -> None:
    until(lambda: box.lines(f"peers read generation={generation} "))


def states(box: DaemonBox) -> dict[int, str]:
    return {node["index"]: node["state"] for node in box.read("domain.json").get("nodes", ())}


def leads_to(box: DaemonBox, index: int) -> str:
    """The address at which the node's `nvidia-imex` looks for that one."""
    nodes = box.read("domain.json").get("nodes", ())
    return str(next((node["host"] for node in nodes if node["index"] == index), ""))


def restarted(box: DaemonBox, before: int) -> int:
    """The process id of the next `nvidia-imex` after `before`, once it is ready."""
    until(lambda: box.imex_pid() != before and box.is_ready(), "nvidia-imex runs again")
    return box.imex_pid()


def test_a_domain_of_four_forms_and_reports_itself(domain: Domain) -> None:
    boxes = domain.formed(4)
    for box in boxes:
        until_domain_is(box, "UP")
        assert states(box) == dict.fromkeys(range(4), "READY")
        assert box.probe("/ready") == (200, "Ready")
        found = box.read("ready.json")
        assert found["claimUID"] == f"claim-{box.node}"
        assert found["generation"] == 1


def test_the_hosts_file_keeps_the_lines_of_others(domain: Domain) -> None:
    (box,) = domain.formed(1)
    lines = box.hosts.read_text().splitlines()
    assert lines[:2] == ["127.0.0.1\tlocalhost", "10.9.9.9\tforeign"]
    assert f"{box.address}\t{NAME % 0}" in lines
    assert f"127.0.0.2\t{NAME % 3}" in lines


def test_late_peers_are_connected_without_a_restart(domain: Domain) -> None:
    first, *_ = domain.formed(1)
    before = first.imex_pid()
    late = domain.pod()
    late.settings()
    late.start()
    assert until(late.reason) == "NoPeers"
    domain.tell([first, late], generation=2)
    until(lambda: late.is_ready() and first.is_ready(generation=2))
    until(lambda: states(first) == {0: "READY", 1: "READY"})
    assert first.imex_pid() == before


def test_a_burst_of_changes_is_told_in_few_signals_and_the_last_one_counts(domain: Domain) -> None:
    first, second = domain.formed(2)
    first.faults(signal_window_s=0.05)
    since = time.monotonic()
    for generation in range(2, 12):
        last = domain.address()
        changed = {0: first.address, 1: second.address, 2 + generation % 2: last}
        first.peers(changed, own=0, generation=generation)
        until_read(first, generation)
    until(lambda: leads_to(first, 3) == last and first.is_ready(generation=11))
    told = first.lines("told of changed names")
    assert 1 <= len(told) <= 1 + (time.monotonic() - since) / QUICK["signal_spacing_s"]


def test_a_changed_own_index_restarts_nvidia_imex(domain: Domain) -> None:
    first, second = domain.formed(2)
    before, other = first.imex_pid(), second.imex_pid()
    peers = [
        {"node": "node-0", "ip": first.address, "index": 3},
        {"node": "node-1", "ip": second.address, "index": 1},
    ]
    for box, own in ((first, 3), (second, 1)):
        box.peers({}, own=own, generation=2, peers=peers)
    restarted(first, before)
    assert len(first.lines("Identified this node as ID 3")) == 1
    until(lambda: states(second) == {1: "READY", 3: "READY"})
    assert second.imex_pid() == other


def test_a_replaced_peer_is_found_at_its_new_address(domain: Domain) -> None:
    first, second = domain.formed(2)
    assert second.stop() == 0
    until_domain_is(first, "DEGRADED")
    replacement = domain.pod()
    replacement.node = 1
    replacement.settings()
    replacement.start()
    domain.tell([first, replacement], generation=2)
    until(lambda: replacement.is_ready() and first.is_ready(generation=2))
    until_domain_is(first, "UP")


def test_in_ip_mode_it_waits_for_all_and_restarts_on_a_change(domain: Domain) -> None:
    first, second = domain.pod(), domain.pod()
    for box in (first, second):
        box.settings(mode="ip", numNodes=2)
        box.start()
    domain.tell([first])
    until(lambda: first.reason() == "WaitingForNodes")
    domain.tell([first, second], generation=2)
    for box in (first, second):
        until(box.is_ready)
    assert (first.shared / "nodes.cfg").read_text() == f"{first.address}\n{second.address}\n"
    assert NAME % 0 not in first.hosts.read_text()
    before = first.imex_pid()
    first.peers({0: first.address, 1: domain.address()}, own=0, generation=3)
    restarted(first, before)


def test_a_crashed_nvidia_imex_is_started_again(domain: Domain) -> None:
    first, second = domain.formed(2)
    before = first.imex_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: "ImexEnded" in str(first.lines("nvidia-imex does not run")))
    restarted(first, before)
    until(lambda: states(second) == {0: "READY", 1: "READY"})


def test_one_that_crashes_at_every_start_is_started_ever_more_rarely(domain: Domain) -> None:
    box = domain.pod()
    box.faults(crash=9)
    box.settings()
    domain.tell([box])
    box.start()
    lines = until(lambda: found if len(found := box.lines("failures=")) >= 4 else None)
    pauses = [float(line.partition("next_try_s=")[2]) for line in lines]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    until(lambda: "ended with status 9" in box.probe("/ready")[1])
    assert box.probe("/ready")[0] == 503
    box.faults()
    until(box.is_ready)


def test_one_that_ignores_sigterm_is_killed_before_it_is_replaced(domain: Domain) -> None:
    box = domain.pod()
    box.faults(ignore_term=True)
    box.settings()
    domain.tell([box])
    box.start(stop_s=0.3)
    until(box.is_ready)
    before = box.imex_pid()
    box.settings(graceTime=30)
    restarted(box, before)
    assert not is_running(before)
    assert box.lines("killing nvidia-imex")
    assert "IMEX_NODE_DISCONNECTED_GRACE_TIME=30" in (box.shared / "imexd.cfg").read_text()


def test_one_that_hangs_is_not_ready_and_then_replaced(domain: Domain) -> None:
    box = domain.pod()
    box.settings()
    domain.tell([box])
    box.start(query_timeout_s=1.0, hang_s=8.0, stop_s=0.3)
    until(box.is_ready)
    before = box.imex_pid()
    os.kill(before, signal.SIGSTOP)
    until(lambda: not box.is_ready(), "two unanswered queries count")
    restarted(box, before)


def test_a_node_that_lost_its_peer_says_so(domain: Domain) -> None:
    first, _ = domain.formed(2)
    until_domain_is(first, "UP")
    first.faults(broken_peers=[1])
    until_domain_is(first, "DEGRADED")
    assert first.is_ready()


def test_readiness_follows_what_nvidia_imex_says(domain: Domain) -> None:
    (box,) = domain.formed(1)
    box.faults(state="WAITING_FOR_RECOVERY")
    until(lambda: box.reason() == "ImexNotReady")
    assert box.probe("/ready") == (503, "ImexNotReady: nvidia-imex is WAITING_FOR_RECOVERY")
    assert box.probe("/startup")[0] == 200
    assert box.probe("/live")[0] == 200


def test_a_ready_file_that_is_removed_comes_back(domain: Domain) -> None:
    (box,) = domain.formed(1)
    (box.shared / "ready.json").unlink()
    until(box.is_ready)


def test_an_in_place_restart_of_the_daemon_leaves_no_second_nvidia_imex(domain: Domain) -> None:
    (box,) = domain.formed(1)
    before = box.imex_pid()
    assert box.stop(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not is_running(before), "it dies with its parent")
    box.start()
    restarted(box, before)
