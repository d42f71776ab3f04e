"""Numbers about numbers: percentiles of a round, medians of rounds, ratios to a floor."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latencies_ms(values_s: Sequence[float]) -> dict[str, float]:
    """p50, p99 and max in milliseconds."""
    return {
        "p50_ms": 1e3 * statistics.median(values_s),
        "p99_ms": 1e3 * percentile(values_s, 0.99),
        "max_ms": 1e3 * max(values_s),
    }


def medians(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of each number over the rounds; what a round does not have is 0 there."""
    keys = dict.fromkeys(key for each in rounds for key in each)
    return {
        key: medians([each.get(key, {}) for each in rounds])
        if any(isinstance(each.get(key), dict) for each in rounds)
        else rounded(statistics.median(each.get(key, 0) for each in rounds))
        for key in keys
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of the rounds."""
    return {
        "median": rounded(statistics.median(values)),
        "min": rounded(min(values)),
        "max": rounded(max(values)),
    }


def rounded(value: float) -> float:
    return round(value, 3)


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, all threads together; says more than a busy clock."""
    return time.clock_gettime(
        (~pid << 3) | 2
    )  # its CPU-time clock, as clock_getcpuclockid(3) has it


def memory_mib(pid: int) -> dict[str, float]:
    """Resident, proportional (shared pages divided among their users), and anonymous memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
    wanted = {"resident": "Rss", "proportional": "Pss", "anonymous": "Anonymous"}
    return {name: rounded(int(fields[key].split()[0]) / 1024) for name, key in wanted.items()}


def print_document(document: Mapping[str, Any]) -> None:
    """The benchmark's result, with what is needed to compare it with another one."""
    print(json.dumps({**document, "machine": _machine()}, indent=2))


def progress(text: str) -> None:
    """For people who wait; the document alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def _machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_1min": rounded(os.getloadavg()[0]),
    }
