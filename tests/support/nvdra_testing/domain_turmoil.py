"""Random things that happen to ComputeDomains: users, agents, kubelets, people who edit what is not
theirs, and an API that fails the controller. What is tried depends on the seed alone."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from nvdra_api.names import ANNOTATION_RESERVATIONS, LABEL_COMPUTE_DOMAIN, NAMESPACE
from nvdra_kube.errors import ApiError
from nvdra_kube.resources import EVENTS, NODES, PODS, RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.scene import domain_of, is_dying, node_of
from nvdra_operator.resources import CLIQUES, COMPUTE_DOMAINS, DAEMON_SETS
from nvdra_sim.cluster.apiserver import Fault
from nvdra_testing.compute_domains import CLIQUE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from nvdra_kube.api import Body, Resource
    from nvdra_testing.compute_domains import DomainCluster

NODES_THERE: Final = tuple(f"node-{number}" for number in range(6))
FABRICS: Final = (*[CLIQUE] * 5, f"{CLIQUE}1", "")
MOST_DOMAINS: Final = 3
MADE: Final = (DAEMON_SETS, RESOURCE_CLAIM_TEMPLATES, CLIQUES)
VERBS: Final = ("", "create", "patch", "update", "delete", "get", "list", "watch")
RESOURCES: Final = (
    "",
    *(resource.plural for resource in (*MADE, COMPUTE_DOMAINS, NODES, PODS, EVENTS)),
)
STATUSES: Final = (403, 404, 409, 410, 422, 429, 500, 503, 504)
RESERVATIONS: Final = (
    "{",
    "[]",
    '{"node-1":7}',
    '{"node-1":{"index":-1}}',
    '{"node-1":{"index":0},"node-2":{"index":0}}',
)
STRANGER: Final = {
    "nodeName": "stranger",
    "ipAddress": "192.0.2.9",
    "cliqueID": "elsewhere",
    "index": 3,
    "status": "Ready",
}
_T = TypeVar("_T")


class Turmoil:
    """`story` tells what was tried, and of what was refused by what."""

    def __init__(self, it: DomainCluster, *, seed: int) -> None:
        self.it = it
        self.rng = random.Random(seed)
        self.story: list[str] = []
        self.uids: dict[str, str] = {}  # of the domains that nobody deleted, by name
        self._made = 0
        self._faults: list[Fault] = []
        steps: dict[Callable[[], Awaitable[None]], int] = {
            self._make: 4,
            self._delete: 2,
            self._join: 20,
            self._leave: 4,
            self._start_daemon: 30,
            self._report: 6,
            self._end_daemon: 8,
            self._delete_object: 8,
            self._lose_node: 2,
            self._take_finalizer: 3,
            self._relabel: 4,
            self._edit_status: 3,
            self._edit_clique: 6,
            self._disturb: 10,
        }
        self._steps, self._weights = tuple(steps), tuple(steps.values())

    async def step(self) -> None:
        """The next thing happens; it may be refused."""
        (step,) = self.rng.choices(self._steps, self._weights)
        if not self.uids:
            step = self._make
        elif step == self._make and len(self.uids) == MOST_DOMAINS:
            step = self._delete
        with self._spared():
            try:
                await step()
            except ApiError as error:
                self.story[-1] += f": {type(error).__name__}"

    def calm(self) -> None:
        """The API does what it is asked to from now on."""
        self.tell("the API is well")
        self._faults.clear()
        self.it.store.faults.clear()

    def tell(self, what: str) -> None:
        self.story.append(what)

    async def delete_all(self) -> None:
        for name in [*self.uids]:
            self.tell(f"{name} is deleted")
            del self.uids[name]
            await self.it.delete(name)

    async def join_all(self) -> None:
        """Nodes without a domain join one, and DaemonSets have their daemon on each node."""
        for number, node in enumerate(NODES_THERE):
            if self.uids and domain_of(await self.it.node(node)) not in self.uids.values():
                name = self._a_domain()
                self.tell(f"{node} joins {name}")
                await self.it.join(node, self.uids[name])
            self.tell(f"{node} gets its daemon")
            await self._start_where_none_runs(node, ip=f"10.0.2.{number}", ready=True)

    async def end_daemons(self) -> None:
        """What kubelets do: pods that are to end, and those of a DaemonSet that is gone for good,
        are no more."""
        for pod in await self.it.everything(PODS):
            if is_dying(pod) or domain_of(pod) not in self.uids.values():
                await self.it.remove(pod)

    # Users and agents.

    async def _make(self) -> None:
        self._made += 1
        name = f"job-{self._made}"
        template = self.rng.choice((f"{name}-channels", "shared"))
        num_nodes = self.rng.choice((0, 1, 3))
        self.tell(f"{name} is made with template {template} for {num_nodes} nodes")
        body = await self.it.domain(name, template=template, num_nodes=num_nodes)
        self.uids[name] = body["metadata"]["uid"]

    async def _delete(self) -> None:
        name = self._a_domain()
        self.tell(f"{name} is deleted")
        del self.uids[name]
        await self.it.delete(name)

    async def _join(self) -> None:
        node, name, clique = self._a_node(), self._a_domain(), self.rng.choice(FABRICS)
        self.tell(f"{node} joins {name} in clique {clique[-6:]!r}")
        await self.it.join(node, self.uids[name], clique=clique)

    async def _leave(self) -> None:
        node = self._a_node()
        self.tell(f"{node} leaves its domain")
        await self.it.leave(node)

    # DaemonSets and kubelets.

    async def _start_daemon(self) -> None:
        """Beside one that is ending, if there is one; never beside another."""
        pick, ip, ready = self._picker(), self._an_ip(), self.rng.random() < 0.7
        self.tell(f"a daemon starts, {ip=}, {ready=}")
        if node := pick([body for body in await self._all(NODES) if domain_of(body)]):
            await self._start_where_none_runs(self._named(node)["name"], ip=ip, ready=ready)

    async def _report(self) -> None:
        pick, ip, ready = self._picker(), self._an_ip() or "10.0.1.1", self.rng.random() < 0.5
        self.tell(f"a daemon reports {ip=}, {ready=}")
        if pod := pick(await self._all(PODS)):
            self.story[-1] += f" on {node_of(pod)}"
            await self.it.report(pod, ip=ip, ready=ready)

    async def _end_daemon(self) -> None:
        pick, grace_s = self._picker(), self.rng.choice((0, 30))
        self.tell(f"a daemon is told to end within {grace_s} s")
        if pod := pick(await self._all(PODS)):
            self.story[-1] += f" on {node_of(pod)}"
            name = pod["metadata"]["name"]
            await self.it.api.delete(PODS, name, namespace=NAMESPACE, grace_period_s=grace_s)

    async def _lose_node(self) -> None:
        node = self._a_node()
        self.tell(f"{node} is deleted")
        await self.it.api.delete(NODES, node)

    # People.

    async def _delete_object(self) -> None:
        pick, resource = self._picker(), self.rng.choice(MADE)
        self.tell(f"a {resource.kind} is deleted")
        if body := pick(await self._all(resource)):
            meta = self._named(body)
            await self.it.api.delete(resource, meta["name"], namespace=meta["namespace"])

    async def _take_finalizer(self) -> None:
        name = self._a_domain()
        self.tell(f"somebody takes the finalizer off {name}")
        await self._patch(COMPUTE_DOMAINS, name, {"metadata": {"finalizers": []}})

    async def _relabel(self) -> None:
        pick, resource = self._picker(), self.rng.choice((*MADE, NODES))
        name = self.rng.choice(("", "nobody", self._a_domain()))
        self.tell(f"a {resource.kind} gets the label of {name!r}")
        if body := pick(await self._all(resource)):
            meta = self._named(body)
            labels = {LABEL_COMPUTE_DOMAIN: self.uids.get(name, name) or None}
            patch = {"metadata": {"labels": labels}}
            await self._patch(resource, meta["name"], patch, namespace=meta.get("namespace"))

    async def _edit_status(self) -> None:
        name = self._a_domain()
        self.tell(f"somebody writes the status of {name}")
        nodes = [{"name": "stranger", **{k: v for k, v in STRANGER.items() if k != "nodeName"}}]
        status = {"status": "Ready", "nodes": nodes, "conditions": []}
        await self._patch(COMPUTE_DOMAINS, name, {"status": status}, subresource="status")

    async def _edit_clique(self) -> None:
        pick, reservations = self._picker(), self.rng.choice(RESERVATIONS)
        daemons = self.rng.choice(([], None, [STRANGER]))
        self.tell(f"somebody writes into a clique {reservations} and {daemons}")
        if body := pick(await self._all(CLIQUES)):
            patch = {
                "metadata": {"annotations": {ANNOTATION_RESERVATIONS: reservations}},
                "daemons": daemons,
            }
            await self._patch(CLIQUES, self._named(body)["name"], patch, namespace=NAMESPACE)

    # The API.

    async def _disturb(self) -> None:
        self._faults = [self._a_fault() for _ in range(self.rng.randrange(4))]
        told = [f"{one.verb} {one.resource} {one.status}".strip() for one in self._faults]
        self.tell(f"the API fails: {', '.join(told) or 'nothing'}")

    def _a_fault(self) -> Fault:
        return Fault(
            verb=self.rng.choice(VERBS),
            resource=self.rng.choice(RESOURCES),
            status=self.rng.choice(STATUSES),
            retry_after_s=self.rng.choice((None, 0.05)),
            latency_s=self.rng.choice((0.0, 0.2)),
            after=self.rng.random() < 0.3,
            probability=self.rng.choice((0.1, 0.5, 1.0)),
        )

    @contextmanager
    def _spared(self) -> Iterator[None]:
        """The faults are for the controller."""
        self.it.store.faults.clear()
        try:
            yield
        finally:
            for fault in self._faults:
                self.it.store.faults.add(fault)

    # Parts of the above.

    def _a_domain(self) -> str:
        return self.rng.choice([*self.uids])

    def _a_node(self) -> str:
        return self.rng.choice(NODES_THERE)

    def _an_ip(self) -> str:
        return self.rng.choice(("", f"10.0.0.{self.rng.randrange(1, 250)}"))

    def _picker(self) -> Callable[[Sequence[_T]], _T | None]:
        """Chooses one of those that will be there; how many they are changes nothing later on."""
        at = self.rng.random()
        return lambda found: found[int(at * len(found))] if found else None

    def _named(self, body: Body) -> Body:
        meta: Body = body["metadata"]
        self.story[-1] += f" ({meta['name']})"
        return meta

    async def _start_where_none_runs(self, node: str, *, ip: str, ready: bool) -> None:
        uid = domain_of(await self.it.node(node))
        pods = [pod for pod in await self.it.everything(PODS) if not is_dying(pod)]
        running = {(domain_of(pod), node_of(pod)) for pod in pods}
        if uid in self.uids.values() and (uid, node) not in running:
            self.story[-1] += f" of {uid}"
            await self.it.daemon(node, uid, ip=ip, ready=ready)

    async def _all(self, resource: Resource) -> list[Body]:
        """From the oldest to the newest: names differ from run to run."""
        bodies = await self.it.everything(resource)
        return sorted(bodies, key=lambda body: int(body["metadata"]["resourceVersion"]))

    async def _patch(
        self,
        resource: Resource,
        name: str,
        patch: Body,
        *,
        namespace: str | None = "default",
        subresource: str = "",
    ) -> None:
        await self.it.api.patch(resource, name, patch, namespace=namespace, subresource=subresource)
