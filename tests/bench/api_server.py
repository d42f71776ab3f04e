"""Program: the embedded API server with one node and claims that are already allocated."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nvdra_kube.logs import configure
from nvdra_kube.resources import NODES, RESOURCE_CLAIMS
from nvdra_sim.cluster.apiserver import ApiServer, ClusterStore, LocalApi
from nvdra_sim.cluster.apiserver.faults import Fault

from .child import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_kube.api import Body

NODE = "node-1"
NAMESPACE = "default"
DRIVER = "gpu.nvidia.com"
GPUS = 8

_VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")


def main(argv: Sequence[str]) -> None:
    configure(verbosity=0)
    arguments = json.loads(argv[0])
    asyncio.run(_run(Path(arguments["service_account_dir"]), int(arguments["claims_per_gpu"])))


async def _run(service_account_dir: Path, claims_per_gpu: int) -> None:
    """Answers each question with the number of calls so far, by verb."""
    store = ClusterStore()
    api = LocalApi(store)
    await api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    claims = {
        gpu: [await _claim(api, gpu, number) for number in range(claims_per_gpu)]
        for gpu in range(GPUS)
    }
    # Rules that do nothing but count.
    counters = {verb: store.faults.add(Fault(verb=verb)) for verb in _VERBS}
    async with ApiServer(store) as server:
        service_account_dir.mkdir()
        (service_account_dir / "ca.crt").write_text(server.ca_pem)
        (service_account_dir / "token").write_text(server.token)
        ready = {"port": server.port, "claims": list(claims.values())}
        await serve(ready, lambda: {verb: rule.struck for verb, rule in counters.items()})


async def _claim(api: LocalApi, gpu: int, number: int) -> dict[str, str]:
    """A claim that the scheduler has given one GPU; answers its reference."""
    name = f"claim-{gpu}-{number}"
    body: Body = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": DRIVER}}]}
        },
    }
    created = await api.create(RESOURCE_CLAIMS, body)
    result = {"request": "gpu", "driver": DRIVER, "pool": NODE, "device": f"gpu-{gpu}"}
    created["status"] = {"allocation": {"devices": {"results": [result]}}}
    stored = await api.update(RESOURCE_CLAIMS, created, subresource="status")
    return {"namespace": NAMESPACE, "name": name, "uid": stored["metadata"]["uid"]}
