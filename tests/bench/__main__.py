"""`python tests/bench prepare [--rounds N] [--quick]`: one benchmark, one JSON document.

Also starts the programs that benchmarks run beside themselves.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

BENCHMARKS = (
    *("prepare", "parallel", "recovery", "churn", "costs", "soak", "start", "simulate", "ring"),
    *("imex", "release", "fleet", "workloads", "controller", "control_plane", "domains"),
)
PROGRAMS = ("api_server", "floor_server")


def main() -> None:
    names = (*BENCHMARKS, *PROGRAMS)
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"usage: python tests/bench {{{'|'.join(BENCHMARKS)}}} [--rounds N] [--quick]")
    # Started by its folder's name, Python finds the modules in it, but not the folder itself.
    tests = Path(__file__).resolve().parents[1]
    # The ring is imported as its own tests do it.
    sys.path[:0] = [str(tests), str(tests.parent), str(tests / "support")]
    importlib.import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
