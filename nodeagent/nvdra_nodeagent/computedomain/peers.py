"""Tells daemons of their peers: watches the one clique that this node is in, while it is in one."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_api.names import clique_name
from nvdra_kube.backoff import Backoff
from nvdra_kube.informer import Informer
from nvdra_nodeagent.computedomain.peer_file import PeerFile
from nvdra_nodeagent.computedomain.readiness import daemons_of
from nvdra_nodeagent.computedomain.resources import CLIQUES, COMPUTE_DOMAINS
from nvdra_nodeagent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.computedomain.directories import DomainDirectories
    from nvdra_nodeagent.steps.domain_dir import DomainDirStep

log = structlog.get_logger(__name__)

TURN_S: Final = 30.0
"""Without news: a file that went missing is written again."""


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
        self._watches: dict[DomainDirStep, PeerWatch] = {}
        self._turned_s = 0.0

    @property
    def last_turn_s(self) -> float:
        """When `run`, or the watch that has been silent for longest, last came round: the loop's
        clock."""
        return min((self._turned_s, *(watch.last_turn_s for watch in self._watches.values())))

    def look_again(self) -> None:
        """Claims have come or gone."""
        self._changed.set()

    async def run(self) -> None:
        """Eternal; when cancelled, all watches have ended before this does."""
        running: dict[DomainDirStep, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._turned_s = asyncio.get_running_loop().time()
                    self._changed.clear()
                    wanted = {step for _, step in daemons_of(self._records()) if _has_peers(step)}
                    for step in running.keys() - wanted:
                        del self._watches[step]
                        running.pop(step).cancel()
                    for watch in self._watches.values():
                        watch.look_again()
                    for step in wanted - running.keys():
                        watch = self._watches[step] = self._watch(step)
                        name = f"peers of {step.domain}"
                        running[step] = tasks.create_task(watch.run(), name=name)
                    await _news(self._changed)
        finally:
            self._watches.clear()

    def _watch(self, step: DomainDirStep) -> PeerWatch:
        file = PeerFile(self._directories, step, node=self._node)
        return PeerWatch(_informer(self._api, step), file, step)


class PeerWatch:
    """Keeps the file of one daemon as the API is. `run` belongs to a task of its owner."""

    def __init__(self, informer: Informer, file: PeerFile, step: DomainDirStep) -> None:
        self._informer = informer
        self._file = file
        self._step = step
        self._news = asyncio.Event()
        self._began_s = self._turned_s = asyncio.get_running_loop().time()

    @property
    def last_turn_s(self) -> float:
        """When the file or the API was last heard of, whichever is longer ago: the loop's clock."""
        return min(self._turned_s, max(self._began_s, self._informer.last_turn_s))

    def look_again(self) -> None:
        """The directory may only now be the daemon's, or made anew."""
        self._news.set()

    async def run(self) -> None:
        """Eternal."""
        self._informer.subscribe(lambda change: self._news.set())
        domain, backoff = self._step.domain, Backoff()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._informer.run(), name=f"watch of {domain}")
            while True:
                await _news(self._news)
                self._news.clear()
                try:
                    await self._bring()
                    backoff.succeeded()
                except AgentError as error:
                    log.error("peers not written", domain=domain, error=str(error))
                    self._news.set()
                    await asyncio.sleep(backoff.failed())
                self._turned_s = asyncio.get_running_loop().time()

    async def _bring(self) -> None:
        for body in tuple(self._informer.items.values()):  # the informer goes on meanwhile
            if self._step.members == "clique" or body["metadata"]["uid"] == self._step.domain:
                await asyncio.to_thread(partial(self._file.bring, body))


def _informer(api: KubeApi, step: DomainDirStep) -> Informer:
    """Of the one object that has the members."""
    if step.members == "clique":
        name = clique_name(step.domain, step.clique)
        selector = f"metadata.name={name}"
        return Informer(api, CLIQUES, namespace=step.home, field_selector=selector)
    selector = f"metadata.name={step.name}"
    return Informer(api, COMPUTE_DOMAINS, namespace=step.namespace, field_selector=selector)


def _has_peers(step: DomainDirStep) -> bool:
    return bool(step.protocol and step.clique)


async def _news(event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TURN_S):
            await event.wait()
