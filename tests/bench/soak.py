"""64 claims in flight on eight GPUs for minutes, while API, NVML and nvidia-smi fail now and then.

Ends with an error when a GPU was granted twice, a call was not answered, or anything is left.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvdra_kube.logs import configure
from nvdra_testing.load import GATES, GPUS, Load
from nvdra_testing.process_node import a_process_node

from .figures import cpu_s, print_document, progress, rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

TELL_S = 15.0
"""How often the memory is looked at, too."""


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python tests/bench soak")
    parser.add_argument("--minutes", type=float, default=5.0, help="default 5")
    parser.add_argument("--seed", type=int, default=1, help="of what fails when; default 1")
    parser.add_argument("--rounds", type=int, default=1, help="one after the other, other seeds")
    parser.add_argument("--quick", action="store_true", help="for a few seconds only")
    options = parser.parse_args(argv)
    configure(verbosity=0)
    minutes = 0.1 if options.quick else options.minutes
    seeds = range(options.seed, options.seed + options.rounds)
    runs = [asyncio.run(_soak(60 * minutes, seed)) for seed in seeds]
    print_document({"runs": runs, "minutes": minutes})


async def _soak(duration_s: float, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="nvdra-soak-") as text:
        async with a_process_node(Path(text)) as node, node.running(*GATES) as agent:
            await node.wait_devices(GPUS)
            pid = agent.pid
            assert pid is not None
            hardware = await asyncio.to_thread(node.hardware)
            load = Load(node, hardware, seed=seed)
            anonymous = [_anonymous_mib(pid)]
            started = time.monotonic()
            telling = asyncio.create_task(_tell(load, pid, anonymous), name="progress")
            await load.run(until=lambda: time.monotonic() - started >= duration_s)
            telling.cancel()
            tally = load.tally
            return {
                "seed": seed,
                "prepared": tally.prepared,
                "unprepared": tally.unprepared,
                "most_in_flight": tally.most_in_flight,
                "longest_prepare_s": rounded(tally.longest_s),
                "refused": dict(tally.refused),
                "troubles": dict(tally.troubles),
                "left_over": 0,  # else there is no document
                "agent_starts": agent.starts,
                "agent_cpu_s": rounded(cpu_s(pid)),
                "anonymous_mib": [*anonymous, _anonymous_mib(pid)],
            }


async def _tell(load: Load, pid: int, anonymous: list[float]) -> None:
    while True:
        await asyncio.sleep(TELL_S)
        anonymous.append(_anonymous_mib(pid))
        progress(f"{anonymous[-1]} MiB, {load.tally}")


def _anonymous_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("Anonymous:"))
    return rounded(int(line.split()[1]) / 1024)
