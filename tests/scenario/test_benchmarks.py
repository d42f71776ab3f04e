"""The benchmarks run and measure what they say; how fast anything is, is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


def run(benchmark: str, *, rounds: int = 1) -> dict[str, Any]:
    command = [sys.executable, str(BENCH), benchmark, "--rounds", str(rounds), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.timeout(300)
def test_prepare_compares_the_agent_with_a_floor() -> None:
    document = run("prepare")
    assert document["api_writes"] == 0
    for pattern in document["patterns"].values():
        assert pattern["agent"]["prepare"]["p50_ms"] > 0
        assert pattern["p50_to_floor"]["prepare"]["median"] > 0


@pytest.mark.timeout(300)
def test_parallel_compares_numbers_in_flight_and_a_slow_gpu() -> None:
    document = run("parallel")
    assert set(document["in_flight"]) == {"1", "4", "8", "16"}
    assert document["in_flight"]["8"]["rate_to_one_loop"]["median"] > 0
    assert document["slow_gpu"]["p99_beside_to_alone"]["median"] > 0


@pytest.mark.timeout(300)
def test_recovery_waits_for_a_hundred_claims_and_for_wiped_slices() -> None:
    document = run("recovery")
    assert document["claims"] == 100
    assert document["recovery"]["with_claims"]["all_answered_s"]["median"] > 0
    assert document["wiped_slices"]["back_s"]["median"] > 0


@pytest.mark.timeout(300)
def test_churn_looks_at_memory_threads_and_files() -> None:
    document = run("churn")
    assert document["threads"] <= 8  # as many as were in flight
    assert document["files"] <= 8
    assert document["looks"][-1]["resident"] > 0


@pytest.mark.timeout(300)
def test_a_claim_costs_two_durable_writes_and_one_call() -> None:
    plain = run("costs", rounds=5)["plain"]  # more than what happens beside them can spoil
    assert plain["prepare"] == {"fsync": 4, "rename": 2, "get": 1}
    assert plain["prepare_again"] == {"get": 1}
    assert plain["unprepare"] == {"fsync": 2, "remove": 2}


@pytest.mark.timeout(300)
def test_a_soak_leaves_nothing() -> None:
    (document,) = run("soak")["runs"]
    assert document["unprepared"] > 0
    assert document["left_over"] == 0


@pytest.mark.timeout(300)
def test_start_sees_no_writes_of_an_agent_that_finds_all_in_place() -> None:
    document = run("start")
    assert document["restart_with_unchanged_hardware"]["writes"] == 0
    assert document["start"]["slices_visible_s"]["median"] > 0
    assert document["memory_mib"]["idle"]["resident"] > 0


@pytest.mark.timeout(300)
def test_imex_measures_the_daemon_beside_the_bare_interpreter() -> None:
    document = run("imex")
    resident = document["memory_mib"]["resident"]["median"]
    assert resident > document["interpreter_memory_mib"]["resident"] > 0
    assert document["start_to_first_probe_s"]["median"] > 0


@pytest.mark.timeout(300)
def test_domains_counts_what_the_controller_writes() -> None:
    document = run("domains")
    one = document["one_domain"]["18"]
    assert 1 <= one["writes_per_node"] < 8
    assert one["bytes_per_node"] > 0
    assert document["many_domains"]["5"]["writes_each"] == 5


@pytest.mark.timeout(300)
def test_a_fleet_counts_what_each_node_costs() -> None:
    document = run("fleet")
    formed = document["nodes"]["3"]["formed"]
    slowly = document["one_by_one"]["3"]["formed"]  # how much falls together is chance in both
    for found in (formed, slowly):
        assert found["agent"]["most_writes"] == 1
        assert 1 <= found["writes_per_node"] <= 8 + 8 / 3  # for each node, and for the domain
        assert found["conflicts"] == 0
    assert formed["agent"]["bytes_received"]["watch computedomaincliques"] > 0


@pytest.mark.timeout(300)
def test_the_controller_is_looked_at_as_a_process() -> None:
    document = run("controller")
    many = document["many_domains"]["3"]
    assert many["writes_each"] <= 5
    assert many["writes_each_removed"] <= 5
    assert many["memory_mib"]["with_all"]["resident"] > 0
    assert document["one_domain"]["2"]["cpu_s"] > 0


@pytest.mark.timeout(300)
def test_a_workload_is_released_whether_or_not_the_kernel_tells_of_its_daemon() -> None:
    document = run("release")
    assert document["told_by_the_kernel"]["p50_ms"] > 0
    assert document["not_told"]["p50_ms"] > 0


@pytest.mark.timeout(300)
def test_workloads_run_on_a_cluster_of_real_programs() -> None:
    formed = run("workloads")["nodes"]["1"]
    assert formed["domain_ready_s"] >= formed["all_pods_running_s"] > 0
    for program in ("daemon", "agent", "controller"):
        assert formed["memory_mib"][program]["resident"] > 0
