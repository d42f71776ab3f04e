"""What the controller takes to form and to remove ComputeDomains, and what it writes meanwhile.

On the embedded API server, in one process with it; agents and kubelets are played. The times are
those of the controller alone: nothing is pulled, started or probed.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from nvdra_kube.logs import configure
from nvdra_testing.compute_domains import a_cluster

from .domain_states import all_gone, all_ready, join_all
from .figures import medians, print_document, progress, rounded
from .traffic import MeteredApi

if TYPE_CHECKING:
    from collections.abc import Sequence


SIZES: Final = (1, 18, 72, 256, 1000)
QUICK_SIZES: Final = (1, 18)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python tests/bench domains", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args(argv)
    configure(verbosity=0)
    asyncio.run(_measure(arguments.rounds, quick=arguments.quick))


async def _measure(rounds: int, *, quick: bool) -> None:
    document: dict[str, Any] = {"benchmark": "domains", "one_domain": {}, "many_domains": {}}
    for size in QUICK_SIZES if quick else SIZES:
        progress(f"one domain of {size} nodes")
        results = [await _one_domain(size) for _ in range(rounds)]
        document["one_domain"][str(size)] = medians(results)
    for count in (5,) if quick else (50, 500):
        progress(f"{count} domains at once")
        results = [await _many_domains(count) for _ in range(rounds)]
        document["many_domains"][str(count)] = medians(results)
    print_document(document)


async def _one_domain(size: int) -> dict[str, Any]:
    """All nodes join and all daemons report at once; the clock runs from the last report."""
    async with a_cluster() as it:
        api = MeteredApi(it.api)
        async with it.running(api=api, patience_s=60):
            uid = (await it.domain(num_nodes=size))["metadata"]["uid"]
            await it.condition(reason="WaitingForNodes")
            names = [f"node-{number}" for number in range(size)]
            for name in names:
                await it.node(name)
            api.traffic.clear()
            cpu_s = time.process_time()
            pods = await join_all(it, uid, names)
            started_s = time.monotonic()
            await all_ready(it, 1)
            formed_s = time.monotonic() - started_s
            formed = {
                "formed_s": rounded(formed_s),
                "cpu_s": rounded(time.process_time() - cpu_s),
                "writes_per_node": rounded(api.traffic.writes.total() / size),
                "bytes_per_node": rounded(api.traffic.sent.total() / size),
            }
            api.traffic.clear()
            started_s = time.monotonic()
            await it.delete()
            for pod in pods:
                await it.remove(pod)
            await all_gone(it)
            return {
                **formed,
                "removed_s": rounded(time.monotonic() - started_s),
                "writes_per_node_removed": rounded(api.traffic.writes.total() / size),
            }


async def _many_domains(count: int) -> dict[str, Any]:
    async with a_cluster() as it:
        api = MeteredApi(it.api)
        async with it.running(api=api):
            started_s = time.monotonic()
            names = [f"domain-{number}" for number in range(count)]
            await asyncio.gather(*(it.domain(name, template=name) for name in names))
            await all_ready(it, count)
            made_s = time.monotonic() - started_s
            made = api.traffic.writes.total()
            api.traffic.clear()
            started_s = time.monotonic()
            await asyncio.gather(*(it.delete(name) for name in names))
            await all_gone(it)
            return {
                "made_s": rounded(made_s),
                "writes_each": rounded(made / count),
                "removed_s": rounded(time.monotonic() - started_s),
                "writes_each_removed": rounded(api.traffic.writes.total() / count),
            }
