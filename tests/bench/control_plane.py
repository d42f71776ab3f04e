"""The real controller process on the real etcd and API server, without nodes.

Many domains at once until the last is complete and until all are gone, and how large a domain's
status and a clique can become. Needs root, as the ring of `tests/e2e` does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml
from tests.e2e.ring.cluster import RealCluster
from tests.e2e.ring.network import API_PORT, CONTROL_PLANE_IP

from nvdra_api.names import NAMESPACE
from nvdra_kube.errors import ApiError
from nvdra_kube.resources import NAMESPACES
from nvdra_kube.session import KubeSession
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS
from nvdra_testing.compute_domains import CLIQUE, CRDS, DEFINITIONS, a_domain

from .controller_process import ControllerProcess, a_controller
from .domain_objects import SETTLE_S, Calls, domain_objects, only_writes, served_calls
from .domain_states import until
from .figures import cpu_s, medians, print_document, progress, rounded, spread
from .production import production_python

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nvdra_kube.api import Body, KubeApi, Resource

_HOME: Final = "default"


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python tests/bench control_plane", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--domains", type=int, default=50, help="at once (%(default)s)")
    parser.add_argument(
        "--limits", action="store_true", help="also the largest objects; takes the server minutes"
    )
    parser.add_argument("--quick", action="store_true", help="5 domains, one round")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.domains = 1, 5
    with (
        tempfile.TemporaryDirectory(prefix="nvdra-") as root,
        RealCluster(name=f"bench-{os.getpid()}", nodes=0, say=progress) as cluster,
    ):
        print_document(asyncio.run(_measure(cluster, Path(root), options)))


async def _measure(cluster: RealCluster, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    python = production_python(root / "venv", "operator")
    credentials = cluster.control_plane.credentials
    ca_pem, token = credentials.ca.read_text(), credentials.tokens["admin"]
    # Beside the server, as it is in a cluster: this process has to go through a relay.
    served = _Server(f"https://{CONTROL_PLANE_IP}:{API_PORT}", ca_pem, token)
    beside = cluster.control_plane.machine.in_network
    async with KubeSession.connect(cluster.control_plane.server, ca_pem=ca_pem, token=token) as api:
        await _install(api)
        limits = await _limits(api) if options.limits else {}
        async with a_controller(python, served, root, wrapped=beside) as controller:
            await controller.said("controller started")
            found = []
            for number in range(options.rounds):
                progress(f"{options.domains} domains, {number + 1} of {options.rounds}")
                found.append(await _round(cluster, api, controller, options.domains))
    return {
        "at_once": options.domains,
        "made_s": spread([each["made"]["last_s"] for each in found]),
        "deleted_s": spread([each["deleted"]["last_s"] for each in found]),
        **medians(found),
        **limits,
    }


async def _install(api: KubeApi) -> None:
    for path in sorted(CRDS.glob("*.yaml")):
        await api.create(DEFINITIONS, yaml.safe_load(path.read_text()))
    await api.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    for resource in (COMPUTE_DOMAINS, CLIQUES):
        await until(lambda resource=resource: _is_served(api, resource))  # type: ignore[misc]


async def _is_served(api: KubeApi, resource: Resource) -> bool:
    try:
        await api.list(resource)
    except ApiError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Server:
    """As the controller is told of it."""

    url: str
    ca_pem: str
    token: str


async def _round(
    cluster: RealCluster, api: KubeApi, controller: ControllerProcess, count: int
) -> dict[str, Any]:
    bodies = [a_domain(f"job-{each}", template=f"job-{each}") for each in range(count)]
    full = (count, count, 2 * count)
    async with domain_objects(api, namespace=_HOME) as objects:
        made = await _timed(
            cluster,
            controller,
            [api.create(COMPUTE_DOMAINS, body) for body in bodies],
            objects.until(lambda: objects.sizes() == full and objects.complete() == count),
        )
        gone = await _timed(
            cluster,
            controller,
            [
                api.delete(COMPUTE_DOMAINS, body["metadata"]["name"], namespace=_HOME)
                for body in bodies
            ],
            objects.until(lambda: not any(objects.sizes())),
        )
        return {"made": made, "deleted": gone, "memory_mib": controller.memory_mib()}


async def _timed(
    cluster: RealCluster,
    controller: ControllerProcess,
    calls: Sequence[Awaitable[object]],
    end: Awaitable[float],
) -> dict[str, Any]:
    before, used_s, began_s = await _writes(cluster), _cpu_s(cluster, controller), time.monotonic()
    await asyncio.gather(*calls)
    took_s = await end - began_s
    await asyncio.sleep(SETTLE_S)
    spent_s = _cpu_s(cluster, controller)
    writes = await _writes(cluster) - before
    return {
        "last_s": rounded(took_s),
        "cpu_s": {what: rounded(spent_s[what] - was) for what, was in used_s.items()},
        # Without the one that is the user's.
        "writes_each": rounded(writes.total() / len(calls) - 1),
        "conflicts": sum(number for key, number in writes.items() if key[2] in ("409", "422")),
        "by": {" ".join(key): number for key, number in sorted(writes.items())},
    }


def _cpu_s(cluster: RealCluster, controller: ControllerProcess) -> dict[str, float]:
    """What each has used so far; together they bound what a quiet machine needs."""
    plane = cluster.control_plane
    daemons = (plane.api_server, plane.etcd, plane.controller_manager)
    pids = {daemon.name: daemon.pid_mark().pid for daemon in daemons}
    return {"controller": controller.cpu_s(), **{name: cpu_s(pid) for name, pid in pids.items()}}


async def _writes(cluster: RealCluster) -> Calls:
    text = await asyncio.to_thread(cluster.kubectl, "get", "--raw", "/metrics")
    return only_writes(served_calls(text))


async def _limits(api: KubeApi) -> dict[str, Any]:
    """The most nodes of a status, and of a clique, that the server stores; and how long it takes
    to store some."""
    domain = await api.create(COMPUTE_DOMAINS, a_domain("large", template="large"))

    async def store(count: int) -> object:
        nodes = [_entry(number, "name") for number in range(count)]
        patch = {"status": {"status": "Ready", "nodes": nodes}}
        return await api.patch(
            COMPUTE_DOMAINS, "large", patch, namespace=_HOME, subresource="status"
        )

    kind = {"apiVersion": CLIQUES.api_version, "kind": CLIQUES.kind}
    await api.create(CLIQUES, {**kind, "metadata": {"name": "large", "namespace": NAMESPACE}})

    async def store_clique(count: int) -> object:
        daemons = [_entry(number, "nodeName") for number in range(count)]
        return await api.patch(CLIQUES, "large", {"daemons": daemons}, namespace=NAMESPACE)

    patch_s = {}
    for count in (18, 250, 1000, 2000, 4000):
        began_s = time.monotonic()
        await store(count)
        patch_s[str(count)] = rounded(time.monotonic() - began_s)
    found = {
        "status_patch_s": patch_s,
        "nodes_of_a_status": await _most(store),
        "nodes_of_a_clique": await _most(store_clique),
        "bytes_of_a_node": len(msgspec.json.encode(_entry(1000, "name"))),
    }
    await api.delete(COMPUTE_DOMAINS, domain["metadata"]["name"], namespace=_HOME)
    await api.delete(CLIQUES, "large", namespace=NAMESPACE)
    return found


async def _most(store: Callable[[int], Awaitable[object]]) -> int:
    """To two hundred; each try takes the server seconds."""
    low, high = 0, 14_000
    while high - low > 200:
        middle = (low + high) // 2
        try:
            await store(middle)
        except ApiError as error:
            progress(f"{middle} nodes: {str(error)[:120]}")
            high = middle
        else:
            low = middle
    return low


def _entry(number: int, name: str) -> Body:
    return {
        name: f"gb200-rack-{number // 18:03}-node-{number % 18:02}",
        "ipAddress": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
        "cliqueID": CLIQUE,
        "index": number % 18,
        "status": "Ready",
    }
