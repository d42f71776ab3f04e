"""Whether the daemon of a domain is ready on this node: by its own word, or by the API's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from nvdra_api.domains import READY
from nvdra_api.names import clique_name
from nvdra_kube.errors import NotFound
from nvdra_nodeagent.computedomain.asking import asked
from nvdra_nodeagent.computedomain.resources import CLIQUES, COMPUTE_DOMAINS
from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.steps.domain_dir import DomainDirStep
from nvdra_nodeagent.steps.node_label import NodeLabelStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nvdra_kube.api import Body, KubeApi
    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.computedomain.asking import LoopCaller
    from nvdra_nodeagent.computedomain.directories import DomainDirectories


def daemons_of(records: Sequence[Record]) -> Iterator[tuple[Record, DomainDirStep]]:
    """Claims of daemons, and what they hold. There is one at most, but for a change-over."""
    for record in records:
        for entry in record.steps:
            if isinstance(entry.step, DomainDirStep):
                yield record, entry.step


def domains_of_others(records: Sequence[Record], uid: str) -> set[str]:
    """The domains that claims but that one keep the node in."""
    return {
        entry.step.domain
        for record in records
        if record.claim.uid != uid
        for entry in record.steps
        if isinstance(entry.step, NodeLabelStep)
    }


def domains_in(records: Sequence[Record]) -> set[str]:
    """Every domain that a claim of this node is about."""
    return domains_of_others(records, "") | {step.domain for _, step in daemons_of(records)}


ASKED_AGAIN_S: Final = 2.0
"""Daemons of an earlier driver tell the API: a thousand nodes that wait all ask it."""


class NodeReadiness:
    """The `Readiness` of steps. Calls block, in worker threads."""

    def __init__(
        self,
        directories: DomainDirectories,
        api: KubeApi,
        *,
        records: Callable[[], Sequence[Record]],
        node: str,
        boot_id: str,
        loop: LoopCaller,
    ) -> None:
        self._directories = directories
        self._api = api
        self._records = records
        self._node = node
        self._boot_id = boot_id
        self._loop = loop
        self._answers: dict[str, tuple[float, str]] = {}

    def obstacle(self, domain: str, clique: str) -> str:
        """Why the node cannot use the domain yet; "" when it can."""
        for record, step in daemons_of(self._records()):
            if step.domain == domain and record.boot_id == self._boot_id:
                if step.clique != clique:
                    return f"its daemon runs for clique {step.clique or '-'}, not {clique}"
                if step.protocol:
                    return self._directories.words(domain, claim_uid=step.claim_uid).obstacle
                return self._asked(step)
        return "its daemon has not been started on this node yet"

    def _asked(self, step: DomainDirStep) -> str:
        """A server that does not answer is waited for too: the node stays in the domain."""
        asked_s, answer = self._answers.get(step.claim_uid, (0.0, ""))
        if answer and time.monotonic() - asked_s < ASKED_AGAIN_S:
            return answer
        try:
            answer = self._loop.call(lambda: self._in_api(step))
        except AgentError as error:
            answer = f"whether its daemon is ready is not known: {error}"
        self._answers = {step.claim_uid: (time.monotonic(), answer)}
        return answer

    async def _in_api(self, step: DomainDirStep) -> str:
        """Daemons of an earlier driver write themselves into their clique, or into the status."""
        if step.clique and _says_ready(await self._clique(step), "daemons", "nodeName", self._node):
            return ""
        domain = await self._domain(step)
        status = domain.get("status") or {}
        if _says_ready(status, "nodes", "name", self._node):
            return ""
        return f"node {self._node} is not Ready in its clique, nor in the domain's status"

    async def _clique(self, step: DomainDirStep) -> Body:
        name = clique_name(step.domain, step.clique)
        try:
            call = self._api.get(CLIQUES, name, namespace=step.home)
            return await asked(f"GET ComputeDomainClique {step.home}/{name}", call)
        except NotFound:
            return {}

    async def _domain(self, step: DomainDirStep) -> Body:
        try:
            call = self._api.get(COMPUTE_DOMAINS, step.name, namespace=step.namespace)
            return await asked(f"GET ComputeDomain {step.namespace}/{step.name}", call)
        except NotFound:
            return {}


def _says_ready(body: Body, field: str, key: str, node: str) -> bool:
    return any(
        each.get(key) == node and each.get("status") == READY for each in body.get(field) or ()
    )
