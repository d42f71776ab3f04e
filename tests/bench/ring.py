"""The product on the real ring: pods with and without a claim, the chart, the image, fifty agents,
fifty ComputeDomains.

Needs root, as the ring does. Parts: `pods` (with the chart and the image), `pool` and `domains`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.injectors.pool import AgentPool, a_pool
from tests.e2e.product.domains import domain_values
from tests.e2e.product.release import Product, load_image
from tests.e2e.ring.cluster import RealCluster
from tests.e2e.ring.storage import images_dir

from . import ring_domains, ring_pods
from .figures import cpu_s, print_document, progress, rounded, spread
from .production import production_python

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS: Final = ("pods", "pool", "domains")
_MIB: Final = 1 << 20
_DOMAIN_ROUNDS: Final = 3


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python tests/bench ring")
    parser.add_argument("parts", nargs="*", default=PARTS, metavar=f"{{{','.join(PARTS)}}}")
    parser.add_argument("--rounds", type=int, default=20, help="pods of each kind (%(default)s)")
    parser.add_argument("--agents", type=int, default=50, help="in the pool (%(default)s)")
    parser.add_argument(
        "--steady-s", type=float, default=120.0, help="the pool is watched for this long"
    )
    parser.add_argument("--domains", type=int, default=50, help="at once (%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="5 pods, 10 agents, 20 seconds, 5 domains"
    )
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.agents, options.steady_s, options.domains = 5, 10, 20.0, 5
    print_document(_measure(options))


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    started = time.monotonic()
    with RealCluster(name="bench", say=progress) as cluster:
        found["ring"] = {"warm_start_s": rounded(time.monotonic() - started)}
        if "pods" in options.parts:
            found |= _product(cluster, options.rounds)
        if "pool" in options.parts:
            found["pool"] = _pool(cluster, options)
        if "domains" in options.parts:
            found["domains"] = _domains(cluster, options.domains)
        leaving = time.monotonic()
    found["ring"]["stop_s"] = rounded(time.monotonic() - leaving)
    return found


def _product(cluster: RealCluster, rounds: int) -> dict[str, Any]:
    loading = time.monotonic()
    load_image(cluster)
    image = {
        "archive_mib": rounded((images_dir() / "driver.tar").stat().st_size / _MIB),
        "build_warm_and_load_s": rounded(time.monotonic() - loading),
    }
    product = Product(cluster)
    try:
        product.install()
        pods = asyncio.run(ring_pods.measure(cluster, rounds=rounds))
    finally:
        product.uninstall()
    chart = {"install_to_ready_s": rounded(product.install_s)}
    return {"image": image, "chart": chart, "pod_running": pods, "rounds": rounds}


def _domains(cluster: RealCluster, count: int) -> dict[str, Any]:
    load_image(cluster)
    product = Product(cluster, domain_values())
    try:
        product.install()
        rounds = asyncio.run(ring_domains.measure(product, count=count, rounds=_DOMAIN_ROUNDS))
    finally:
        product.uninstall()
    return {"at_once": count, "rounds": _DOMAIN_ROUNDS, **rounds}


def _pool(cluster: RealCluster, options: argparse.Namespace) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="nvdra-bench-") as scratch,
        a_pool(cluster, python=production_python(Path(scratch)), size=options.agents) as pool,
    ):
        storm = _storm(pool)
        return {"agents": pool.size, "storm": storm, "steady": _steady(pool, options.steady_s)}


def _storm(pool: AgentPool) -> dict[str, Any]:
    """All at once, each laying out its simulated machine first."""
    before_cpu_s, started = _api_server_cpu_s(pool), time.monotonic()
    pool.start()
    pool.wait_published()
    published_s = time.monotonic() - started
    pool.wait_answering()
    calls = pool.calls()
    return {
        "all_published_s": rounded(published_s),
        "calls_per_agent": rounded(calls.total / pool.size),
        "writes_per_agent": rounded(calls.writes / pool.size),
        "refused": calls.refused,
        "calls": calls.by_verb(),
        "api_server_cpu_s": rounded(_api_server_cpu_s(pool) - before_cpu_s),
    }


def _steady(pool: AgentPool, for_s: float) -> dict[str, Any]:
    agents = [agent.pid_mark().pid for agent in pool.agents]
    before, started = pool.calls(), time.monotonic()
    before_cpu_s = [cpu_s(pid) for pid in agents]
    time.sleep(for_s)
    spent_s = [cpu_s(pid) - was for pid, was in zip(agents, before_cpu_s, strict=True)]
    made, minutes = pool.calls() - before, (time.monotonic() - started) / 60
    memory = pool.memory_mib()
    return {
        "watched_s": rounded(minutes * 60),
        "calls_per_agent_and_minute": rounded(made.total / pool.size / minutes),
        "writes": made.writes,
        "calls": made.by_verb(),
        "cpu_ms_per_agent_and_minute": rounded(1e3 * median(spent_s) / minutes),
        "memory_mib": {kind: spread([each[kind] for each in memory]) for kind in memory[0]},
    }


def _api_server_cpu_s(pool: AgentPool) -> float:
    return cpu_s(pool.cluster.api_server.pid_mark().pid)
