"""What a ComputeDomain's daemon costs a node: its memory, its start, and from start to ready.

The floor is the bare interpreter. `nvidia-imex` and `nvidia-imex-ctl` are the simulated ones, so
`ready_s` says how long the daemon's own way is, not how long the real ones take.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvdra_nodeagent.imex.lifecycle import Timings
from nvdra_testing.imex import a_domain, until

from .figures import cpu_s, memory_mib, print_document, progress, rounded, spread
from .setting import rounds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_testing.imex import DaemonBox, Domain

IDLE_S = 20.0
_PRODUCTION = Timings()._asdict()
_SLEEP = "import signal; signal.pause()"


def main(argv: Sequence[str]) -> None:
    options = rounds_of("imex", argv, rounds=11, quick=2)
    with tempfile.TemporaryDirectory() as root, a_domain(Path(root)) as domain:
        print_document(_measure(domain, options.rounds, IDLE_S / 10 if options.quick else IDLE_S))


def _measure(domain: Domain, rounds: int, idle_s: float) -> dict[str, Any]:
    starts: list[float] = []
    readies: list[float] = []
    sizes: list[dict[str, float]] = []
    for number in range(rounds):
        box = domain.pod()
        starts.append(_started(box))
        box.settings(node="node-0")
        began = time.perf_counter()
        box.peers({0: box.address}, own=0)
        until(box.is_ready)
        readies.append(time.perf_counter() - began)
        sizes.append(memory_mib(_pid(box)))
        box.stop()
        progress(f"imex {number + 1}/{rounds}: {sizes[-1]}")
    return {
        "start_to_first_probe_s": spread(starts),
        "peers_written_to_ready_s": spread(readies),
        "memory_mib": {name: spread([each[name] for each in sizes]) for name in sizes[0]},
        "interpreter_memory_mib": _interpreter(),
        "idle": _idle(domain, idle_s),
        "rounds": rounds,
    }


def _started(box: DaemonBox) -> float:
    began = time.perf_counter()
    box.start(**_PRODUCTION)
    until(lambda: box.probe("/live")[0] == 200)
    return time.perf_counter() - began


def _idle(domain: Domain, seconds: float) -> dict[str, float]:
    """CPU that a ready daemon uses while nothing happens, its queries included."""
    box = domain.pod()
    box.settings(node="node-0")
    box.peers({0: box.address}, own=0)
    box.start(**_PRODUCTION)
    until(box.is_ready)
    before = cpu_s(_pid(box))
    time.sleep(seconds)
    used = cpu_s(_pid(box)) - before
    box.stop()
    return {"seconds": seconds, "cpu_ms_per_minute": rounded(used / seconds * 60e3)}


def _interpreter() -> dict[str, float]:
    process = subprocess.Popen([sys.executable, "-c", _SLEEP], env=dict(os.environ))
    try:
        time.sleep(0.5)
        return memory_mib(process.pid)
    finally:
        process.kill()
        process.wait()


def _pid(box: DaemonBox) -> int:
    assert box.process is not None
    return box.process.pid
