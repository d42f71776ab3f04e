"""The benchmarks run and measure what they say; how fast anything is, is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


def run(benchmark: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCH), benchmark, "--rounds", "1", "--quick"]
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
