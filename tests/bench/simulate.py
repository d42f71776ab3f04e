"""`nvdra simulate` without arguments: from the command to the end of its demo."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from .figures import print_document, progress, spread
from .setting import rounds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = (sys.executable, "-m", "nvdra_cli.main", "simulate", "--json")


def main(argv: Sequence[str]) -> None:
    options = rounds_of("simulate", argv, rounds=5, quick=2)
    command_s, demo_s = [], []
    for number in range(options.rounds):
        whole_s, own_s = _run()
        command_s.append(whole_s)
        demo_s.append(own_s)
        progress(f"simulate {number + 1}/{options.rounds}: {whole_s:.2f} s")
    document = {"command_s": spread(command_s), "as_it_says_s": spread(demo_s)}
    print_document({**document, "rounds": options.rounds})


def _run() -> tuple[float, float]:
    """Seconds by our clock, and those that the command's document gives."""
    started = time.perf_counter()
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    return time.perf_counter() - started, float(json.loads(done.stdout)["seconds"])
