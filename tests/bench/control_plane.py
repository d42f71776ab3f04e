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
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.ring.cluster import RealCluster
from tests.e2e.ring.network import API_PORT, CONTROL_PLANE_IP

from nvdra_api.names import FINALIZER_COMPUTE_DOMAIN, NAMESPACE
from nvdra_kube.errors import ApiError
from nvdra_kube.informer import Informer
from nvdra_kube.resources import NAMESPACES, RESOURCE_CLAIM_TEMPLATES
from nvdra_kube.session import KubeSession
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS
from nvdra_testing.compute_domains import CLIQUE, CRDS, DEFINITIONS, a_domain

from .controller_process import ControllerProcess, a_controller
from .domain_states import until
from .figures import cpu_s, medians, print_document, progress, rounded, spread
from .production import production_python

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nvdra_kube.api import Body, KubeApi, Resource

_HOME: Final = "default"
_PATIENCE_S: Final = 300.0
_SETTLE_S: Final = 3.0
_OURS: Final = frozenset(
    each.plural for each in (COMPUTE_DOMAINS, DAEMON_SETS, RESOURCE_CLAIM_TEMPLATES, CLIQUES)
)
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})
_Calls = Counter[tuple[str, str, str]]


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


class _Look:
    """Current copies of what domains consist of; `until` waits for changes only."""

    def __init__(self, api: KubeApi) -> None:
        self._news = asyncio.Event()
        self.domains = Informer(api, COMPUTE_DOMAINS, namespace=_HOME)
        self.daemons = Informer(api, DAEMON_SETS, namespace=NAMESPACE)
        self.templates = Informer(api, RESOURCE_CLAIM_TEMPLATES)
        self.all = (self.domains, self.daemons, self.templates)
        for informer in self.all:
            informer.subscribe(lambda _: self._news.set())

    def sizes(self) -> tuple[int, ...]:
        return tuple(len(informer.items) for informer in self.all)

    def are_complete(self, count: int) -> bool:
        bodies = self.domains.items.values()
        return self.sizes() == (count, count, 2 * count) and all(map(_is_complete, bodies))

    async def until(self, holds: Callable[[], bool]) -> float:
        """When that was, on the steady clock."""
        async with asyncio.timeout(_PATIENCE_S):
            while not holds():
                self._news.clear()
                await self._news.wait()
        return time.monotonic()


def _is_complete(domain: Body) -> bool:
    finalizers = domain["metadata"].get("finalizers") or ()
    return FINALIZER_COMPUTE_DOMAIN in finalizers and bool(domain.get("status", {}).get("status"))


async def _round(
    cluster: RealCluster, api: KubeApi, controller: ControllerProcess, count: int
) -> dict[str, Any]:
    look = _Look(api)
    tasks = [asyncio.create_task(informer.run()) for informer in look.all]
    try:
        for informer in look.all:
            await informer.wait_synced()
        bodies = [a_domain(f"job-{each}", template=f"job-{each}") for each in range(count)]
        made = await _timed(
            cluster,
            controller,
            [api.create(COMPUTE_DOMAINS, body) for body in bodies],
            look.until(lambda: look.are_complete(count)),
        )
        gone = await _timed(
            cluster,
            controller,
            [
                api.delete(COMPUTE_DOMAINS, body["metadata"]["name"], namespace=_HOME)
                for body in bodies
            ],
            look.until(lambda: not any(look.sizes())),
        )
        return {"made": made, "deleted": gone, "memory_mib": controller.memory_mib()}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _timed(
    cluster: RealCluster,
    controller: ControllerProcess,
    calls: Sequence[Awaitable[object]],
    end: Awaitable[float],
) -> dict[str, Any]:
    before, used_s, began_s = await _calls(cluster), _cpu_s(cluster, controller), time.monotonic()
    await asyncio.gather(*calls)
    took_s = await end - began_s
    await asyncio.sleep(_SETTLE_S)
    spent_s = _cpu_s(cluster, controller)
    writes = await _calls(cluster) - before
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


async def _calls(cluster: RealCluster) -> _Calls:
    """Writes of objects of domains, by whomever; a DaemonSet's status is its controller's."""
    found: _Calls = Counter()
    text = await asyncio.to_thread(cluster.kubectl, "get", "--raw", "/metrics")
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name != "apiserver_request_total" or labels["verb"] not in _WRITES:
                continue
            what = labels["resource"], labels["subresource"]
            if what[0] in _OURS and what != (DAEMON_SETS.plural, "status"):
                found[labels["verb"], labels["resource"], labels["code"]] += int(sample.value)
    return found


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
