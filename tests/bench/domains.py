"""What the controller takes to form and to remove ComputeDomains, and what it writes meanwhile.

On the embedded API server, in one process with it; agents and kubelets are played. The times are
those of the controller alone: nothing is pulled, started or probed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from nvdra_kube.logs import configure
from nvdra_operator.resources import COMPUTE_DOMAINS
from nvdra_testing.compute_domains import DomainCluster, a_cluster
from nvdra_testing.recorded_api import RecordedApi

from .figures import medians, print_document, progress, rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_kube.api import Body, JsonPatch, Resource

SIZES: Final = (1, 18, 72, 256, 1000)
QUICK_SIZES: Final = (1, 18)
NODES_PER_CLIQUE: Final = 18


class _Weighed(RecordedApi):
    """Counts the bytes of bodies, too."""

    sent = 0

    async def create(self, resource: Resource, body: Body, **options: Any) -> Body:
        self.sent += len(json.dumps(body))
        return await super().create(resource, body, **options)

    async def update(self, resource: Resource, body: Body, **options: Any) -> Body:
        self.sent += len(json.dumps(body))
        return await super().update(resource, body, **options)

    async def patch(
        self, resource: Resource, name: str, patch: Body | JsonPatch, **options: Any
    ) -> Body:
        self.sent += len(json.dumps(patch))
        return await super().patch(resource, name, patch, **options)


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
        api = _Weighed(it.api)
        async with it.running(api=api, patience_s=60):
            uid = (await it.domain(num_nodes=size))["metadata"]["uid"]
            await it.condition(reason="WaitingForNodes")
            names = [f"node-{number}" for number in range(size)]
            for name in names:
                await it.node(name)
            api.writes.clear()
            api.sent = 0
            cpu_s = time.process_time()
            pods = await _join(it, uid, names)
            started_s = time.monotonic()
            await _ready(it, 1)
            formed_s = time.monotonic() - started_s
            formed = {
                "formed_s": rounded(formed_s),
                "cpu_s": rounded(time.process_time() - cpu_s),
                "writes_per_node": rounded(len(api.writes) / size),
                "bytes_per_node": rounded(api.sent / size),
            }
            api.writes.clear()
            started_s = time.monotonic()
            await it.delete()
            for pod in pods:
                await it.remove(pod)
            await _gone(it)
            return {
                **formed,
                "removed_s": rounded(time.monotonic() - started_s),
                "writes_per_node_removed": rounded(len(api.writes) / size),
            }


async def _join(it: DomainCluster, uid: str, names: Sequence[str]) -> list[Body]:
    pods = []
    for number, name in enumerate(names):
        await it.join(name, uid, clique=f"clique.{number // NODES_PER_CLIQUE}")
        pods.append(await it.daemon(name, uid))
    for ready in (False, True):
        for number, pod in enumerate(pods):
            await it.report(pod, ip=f"10.0.{number >> 8}.{number & 255}", ready=ready)
    return pods


async def _many_domains(count: int) -> dict[str, Any]:
    async with a_cluster() as it:
        api = _Weighed(it.api)
        async with it.running(api=api):
            started_s = time.monotonic()
            names = [f"domain-{number}" for number in range(count)]
            await asyncio.gather(*(it.domain(name, template=name) for name in names))
            await _ready(it, count)
            made_s = time.monotonic() - started_s
            made = Counter(write.verb for write in api.writes)
            api.writes.clear()
            started_s = time.monotonic()
            await asyncio.gather(*(it.delete(name) for name in names))
            await _gone(it)
            return {
                "made_s": rounded(made_s),
                "writes_each": rounded(sum(made.values()) / count),
                "removed_s": rounded(time.monotonic() - started_s),
                "writes_each_removed": rounded(len(api.writes) / count),
            }


async def _ready(it: DomainCluster, count: int) -> None:
    async def ready() -> bool:
        bodies = await it.everything(COMPUTE_DOMAINS)
        statuses = [(one.get("status") or {}).get("status") for one in bodies]
        return statuses.count("Ready") == count

    await _until(ready)


async def _gone(it: DomainCluster) -> None:
    async def gone() -> bool:
        return not await it.everything(COMPUTE_DOMAINS)

    await _until(gone)


async def _until(probe: Any) -> None:
    while not await probe():
        await asyncio.sleep(0.02)
