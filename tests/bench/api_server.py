"""Program: the embedded API server with one node and claims that are already allocated.

Claims are listed by lane, a lane being calls one after another: the first eight have a GPU each,
next eight share these by admin access. Those of the lane `sliced` ask for time slices of GPU 0.
"""

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
LANES = 16

_SLICED = {
    "apiVersion": "resource.nvidia.com/v1beta1",
    "kind": "GpuConfig",
    "sharing": {"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}},
}
_VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")


def main(argv: Sequence[str]) -> None:
    configure(verbosity=0)
    arguments = json.loads(argv[0])
    asyncio.run(_run(Path(arguments["service_account_dir"]), int(arguments["claims_per_lane"])))


async def _run(service_account_dir: Path, claims_per_lane: int) -> None:
    """Answers each question with the number of calls so far, by verb."""
    store = ClusterStore()
    api = LocalApi(store)
    await api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    numbers = range(claims_per_lane)
    claims = [[await _claim(api, lane, number) for number in numbers] for lane in range(LANES)]
    sliced = [await _claim(api, 0, number, config=_SLICED) for number in numbers]
    # Rules that do nothing but count.
    counters = {verb: store.faults.add(Fault(verb=verb)) for verb in _VERBS}
    async with ApiServer(store) as server:
        service_account_dir.mkdir()
        (service_account_dir / "ca.crt").write_text(server.ca_pem)
        (service_account_dir / "token").write_text(server.token)
        ready = {"port": server.port, "claims": claims, "sliced": sliced}
        await serve(ready, lambda: {verb: rule.struck for verb, rule in counters.items()})


async def _claim(
    api: LocalApi, lane: int, number: int, *, config: Body | None = None
) -> dict[str, str]:
    """A claim that the scheduler has given one GPU; answers its reference."""
    name = f"{'sliced' if config else 'claim'}-{lane}-{number}"
    body: Body = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": DRIVER}}]}
        },
    }
    created = await api.create(RESOURCE_CLAIMS, body)
    created["status"] = {"allocation": {"devices": _allocation(lane, config)}}
    stored = await api.update(RESOURCE_CLAIMS, created, subresource="status")
    return {"namespace": NAMESPACE, "name": name, "uid": stored["metadata"]["uid"]}


def _allocation(lane: int, config: Body | None) -> Body:
    result: Body = {
        "request": "gpu",
        "driver": DRIVER,
        "pool": NODE,
        "device": f"gpu-{lane % GPUS}",
    }
    if lane >= GPUS:
        result["adminAccess"] = True
    if config is None:
        return {"results": [result]}
    entry = {"source": "FromClaim", "opaque": {"driver": DRIVER, "parameters": config}}
    return {"results": [result], "config": [entry]}
