"""What agents and controller together take to form a ComputeDomain, as it grows: the scale law.

Whole agents and the controller, in one process, on the embedded API; kubelets, the DaemonSet
controller and the daemons are played. Calls and bytes are those of a real cluster, times are those
of one machine that does the work of all nodes.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import structlog

from nvdra_kube.logs import configure
from nvdra_nodeagent.computedomain.agent import PREPARE_BUDGET_S
from nvdra_operator.resources import CLIQUES
from nvdra_testing.compute_domains import a_cluster

from .domain_states import NODES_PER_CLIQUE, all_gone, all_ready, until
from .figures import medians, print_document, progress, rounded
from .fleet_nodes import PATIENCE_S, a_fleet
from .traffic import MeteredApi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_testing.compute_domains import DomainCluster

    from .fleet_nodes import PlayedNode
    from .traffic import Traffic

SIZES: Final = (1, 18, 72, 256, 1000)
QUICK_SIZES: Final = (1, 3)
LATE_S: Final = 50.0
"""Later than an agent waits: claims fail once, and are asked for again."""
_THREADS: Final = 64
"""Which real nodes do not share."""
_WATCHERS_PER_NODE: Final = 2
_QUIET_S: Final = 1.5
_SPACING_S: Final = 0.3


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python tests/bench fleet", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="NODES")
    parser.add_argument("--one-by-one", type=int, default=NODES_PER_CLIQUE, metavar="NODES")
    parser.add_argument("--quick", action="store_true", help=f"sizes {QUICK_SIZES}")
    options = parser.parse_args(argv)
    sizes = QUICK_SIZES if options.quick else options.sizes
    _spare_kubelets(max(sizes))
    configure(verbosity=0)
    # That claims wait is what is measured here, a thousand times.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(_measure(sizes, options))


def _spare_kubelets(nodes: int) -> None:
    """Agents watch files; the kernel counts watchers by user, and kubelets end without one."""
    most = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if os.getuid() == 0 and nodes * _WATCHERS_PER_NODE > most / 2:
        sys.exit(
            f"{nodes} agents would take the {most} inotify instances of root from other programs: "
            "use a user of its own, for example with `setpriv --reuid=54321 --clear-groups` and "
            "`--inh-caps=+dac_override,+dac_read_search "
            "--ambient-caps=+dac_override,+dac_read_search`"
        )


async def _measure(sizes: Sequence[int], options: argparse.Namespace) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    found: dict[str, Any] = {}
    for size in sizes:
        progress(f"{size} nodes")
        found[str(size)] = medians([await _one(size) for _ in range(options.rounds)])
    size, late_s = (QUICK_SIZES[-1], 0.0) if options.quick else (options.one_by_one, LATE_S)
    progress(f"{size} nodes one by one")
    slowly = await _one(size, slowly=True)
    progress(f"{size} nodes, daemons {late_s:g} s late")
    late = await _one(size, late_s=late_s)
    print_document(
        {
            "nodes": found,
            "one_by_one": {str(size): slowly},
            "late": {str(size): late},
            "rounds": options.rounds,
        }
    )


async def _one(size: int, *, slowly: bool = False, late_s: float = 0.0) -> dict[str, Any]:
    budget_s = PREPARE_BUDGET_S if late_s else PATIENCE_S
    with tempfile.TemporaryDirectory(prefix="nvdra-") as root:
        async with a_cluster() as it:
            api = MeteredApi(it.api)
            async with (
                it.running(api=api, patience_s=60.0, settle_s=2.0),
                a_fleet(it, Path(root), size=size, budget_s=budget_s) as fleet,
            ):
                formed = await _form(it, api.traffic, fleet, slowly=slowly, late_s=late_s)
                left = await _leave(it, api.traffic, fleet)
                began_s = time.monotonic()
                await it.delete()
                await all_gone(it)
                gone_s = rounded(time.monotonic() - began_s)
                return {"formed": formed, "left": left, "deleted_when_empty_s": gone_s}


async def _form(
    it: DomainCluster,
    controller: Traffic,
    fleet: Sequence[PlayedNode],
    *,
    slowly: bool,
    late_s: float,
) -> dict[str, Any]:
    """From the domain's creation until all workloads are released, and until it says Ready.

    `slowly`: one node after another, so that nothing can be batched; else all at once. Each daemon
    starts `late_s` after its node has joined.
    """
    _clear(controller, fleet)
    loop, cpu_s = asyncio.get_running_loop(), time.process_time()
    began_s = loop.time()
    uid = (await it.domain(num_nodes=len(fleet)))["metadata"]["uid"]
    await it.until(it.template)
    await it.until(lambda: it.daemon_set(uid))
    if slowly:
        for each in fleet:
            await each.work(uid, of=1, daemon_after_s=late_s)
            await asyncio.sleep(_SPACING_S)
    else:
        works = [each.work(uid, of=len(fleet), daemon_after_s=late_s) for each in fleet]
        await asyncio.gather(*works)
    released_s = max(each.released_s for each in fleet) - began_s
    await all_ready(it, 1)
    ready_s = loop.time() - began_s
    cpu_s = time.process_time() - cpu_s
    await _quiet(controller, fleet)
    progress(f"{len(fleet)} nodes released after {released_s:.1f} s")
    waited = [each.released_s - each.ready_s for each in fleet]
    return {
        "all_released_s": rounded(released_s),
        "domain_ready_s": rounded(ready_s),
        "cpu_ms_per_node": rounded(1e3 * cpu_s / len(fleet)),
        "daemon_ready_to_released_ms": rounded(1e3 * median(waited)),
        **_traffic(controller, fleet),
    }


async def _leave(
    it: DomainCluster, controller: Traffic, fleet: Sequence[PlayedNode]
) -> dict[str, Any]:
    """All workloads end at once; until no clique is left."""
    _clear(controller, fleet)
    began_s = time.monotonic()
    await asyncio.gather(*(each.leave() for each in fleet))

    async def empty() -> bool:
        return not await it.everything(CLIQUES)

    await until(empty)
    left_s = time.monotonic() - began_s
    await _quiet(controller, fleet)
    return {"left_s": rounded(left_s), **_traffic(controller, fleet)}


def _clear(controller: Traffic, fleet: Sequence[PlayedNode]) -> None:
    for each in (controller, *(played.traffic for played in fleet)):
        each.clear()


async def _quiet(controller: Traffic, fleet: Sequence[PlayedNode]) -> None:
    """Return when nobody has written for a while: what is late belongs to the bill."""
    seen = -1
    while (now := _writes(controller, fleet)) != seen:
        seen = now
        await asyncio.sleep(_QUIET_S)


def _writes(controller: Traffic, fleet: Sequence[PlayedNode]) -> int:
    return sum(each.writes.total() for each in (controller, *(one.traffic for one in fleet)))


def _traffic(controller: Traffic, fleet: Sequence[PlayedNode]) -> dict[str, Any]:
    """Everything for each node; `most_` is that of the agent that had most."""
    agents = [played.traffic for played in fleet]
    sent = sum(each.sent.total() for each in (controller, *agents))
    return {
        "writes_per_node": rounded(_writes(controller, fleet) / len(fleet)),
        "bytes_sent_per_node": rounded(sent / len(fleet)),
        "conflicts": sum(each.conflicts.total() for each in (controller, *agents)),
        "agent": {
            "writes": _each([each.writes for each in agents], fleet),
            "most_writes": max(each.writes.total() for each in agents),
            "bytes_sent": _each([each.sent for each in agents], fleet),
            "bytes_received": _each([each.received for each in agents], fleet),
            "most_bytes_received": max(each.received.total() for each in agents),
        },
        "controller": {
            "writes": _each([controller.writes], fleet),
            "bytes_sent": _each([controller.sent], fleet),
            "bytes_received": _each([controller.received], fleet),
        },
    }


def _each(counters: Sequence[Counter[str]], fleet: Sequence[PlayedNode]) -> dict[str, float]:
    """Per node, by what was asked, the most first; `all` is the sum."""
    total: Counter[str] = sum(counters, Counter())
    shares = {what: rounded(count / len(fleet)) for what, count in total.most_common()}
    return {"all": rounded(total.total() / len(fleet)), **shares}
