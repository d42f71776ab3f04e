"""Tells daemons of their peers: watches the one clique that this node is in, while it is in one."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from nvdra_api.names import clique_name
from nvdra_kube.backoff import Backoff
from nvdra_kube.informer import Informer
from nvdra_nodeagent.computedomain.readiness import daemons_of
from nvdra_nodeagent.computedomain.resources import CLIQUES, COMPUTE_DOMAINS
from nvdra_nodeagent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nvdra_kube.api import Body, KubeApi
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.computedomain.directories import DomainDirectories
    from nvdra_nodeagent.steps.domain_dir import DomainDirStep

log = structlog.get_logger(__name__)

_VERSION: Final = 1


def peers_of(body: Body, step: DomainDirStep, *, node: str) -> dict[str, Any]:
    """`peers.json` without its generation: the members of the node's clique, by index. Pure."""
    if step.members == "clique":
        entries = [(each, each.get("nodeName")) for each in body.get("daemons") or ()]
        total = len(entries)
    else:
        listed = (body.get("status") or {}).get("nodes") or ()
        entries = [
            (each, each.get("name")) for each in listed if each.get("cliqueID") == step.clique
        ]
        total = len(listed)
    peers = [
        {"node": name, "ip": each.get("ipAddress"), "index": each.get("index", 0)}
        for each, name in entries
        if name and each.get("ipAddress")
    ]
    own = next((peer["index"] for peer in peers if peer["node"] == node), None)
    peers.sort(key=lambda peer: (peer["index"], peer["node"]))
    return {"ownIndex": own, "peers": peers, "total": total}


class PeerWriter:
    """Writes one domain's `peers.json` whenever the members have changed."""

    def __init__(self, directories: DomainDirectories, step: DomainDirStep, *, node: str) -> None:
        self._directories = directories
        self._step = step
        self._node = node
        self._written: Mapping[str, Any] = {}

    def bring(self, body: Body) -> None:
        """Blocks. :raises Retryable: the disk refuses."""
        said = self._written or self._directories.peers(self._step.domain)
        new = peers_of(body, self._step, node=self._node)
        if all(said.get(key) == value for key, value in new.items()):
            self._written = said
            return
        last = said.get("generation")
        generation = last + 1 if isinstance(last, int) and last > 0 else 1
        document = {"version": _VERSION, "generation": generation, **new}
        self._directories.write_peers(self._step.domain, document)
        self._written = document
        log.info(
            "peers written",
            domain=self._step.domain,
            generation=generation,
            own_index=new["ownIndex"],
            peers=len(new["peers"]),
        )


class PeerKeeper:
    """One watch for each daemon that this node has prepared. `run` belongs to a task of its owner;
    `look_again` may be called at any time in the loop."""

    def __init__(
        self,
        api: KubeApi,
        directories: DomainDirectories,
        *,
        records: Callable[[], Sequence[Record]],
        node: str,
    ) -> None:
        self._api = api
        self._directories = directories
        self._records = records
        self._node = node
        self._changed = asyncio.Event()

    def look_again(self) -> None:
        """Claims have come or gone."""
        self._changed.set()

    async def run(self) -> None:
        """Eternal; when cancelled, all watches have ended before this does."""
        running: dict[DomainDirStep, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                wanted = {step for _, step in daemons_of(self._records()) if _has_peers(step)}
                for step in running.keys() - wanted:
                    running.pop(step).cancel()
                for step in wanted - running.keys():
                    watch = tasks.create_task(self._follow(step), name=f"peers of {step.domain}")
                    running[step] = watch
                await self._changed.wait()

    async def _follow(self, step: DomainDirStep) -> None:
        """Eternal."""
        informer, news = self._informer(step), asyncio.Event()
        informer.subscribe(lambda change: news.set())
        writer = PeerWriter(self._directories, step, node=self._node)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(informer.run(), name=f"watch of {step.domain}")
            backoff = Backoff()
            while True:
                await news.wait()
                news.clear()
                try:
                    await self._bring(writer, informer, step)
                    backoff.succeeded()
                except AgentError as error:
                    log.error("peers not written", domain=step.domain, error=str(error))
                    news.set()
                    await asyncio.sleep(backoff.failed())

    async def _bring(self, writer: PeerWriter, informer: Informer, step: DomainDirStep) -> None:
        for body in informer.items.values():
            if step.members == "clique" or body["metadata"]["uid"] == step.domain:
                await asyncio.to_thread(partial(writer.bring, body))

    def _informer(self, step: DomainDirStep) -> Informer:
        if step.members == "clique":
            return Informer(
                self._api,
                CLIQUES,
                namespace=step.home,
                field_selector=f"metadata.name={clique_name(step.domain, step.clique)}",
            )
        return Informer(
            self._api,
            COMPUTE_DOMAINS,
            namespace=step.namespace,
            field_selector=f"metadata.name={step.name}",
        )


def _has_peers(step: DomainDirStep) -> bool:
    return bool(step.protocol and step.clique)
