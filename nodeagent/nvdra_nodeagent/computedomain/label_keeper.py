"""Puts the node's domain label back where it went while workloads still need the domain.

Whoever takes the label off (a person, or a Node object that was made anew) takes the domain's
daemon off the node with it, and nobody else would notice: workloads run on without IMEX. That the
daemon went is the sign, so that nobody has to watch the Node for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_nodeagent.computedomain.readiness import daemons_of
from nvdra_nodeagent.errors import AgentError, Permanent
from nvdra_nodeagent.steps.node_label import NodeLabelStep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.computedomain.domains import Domains

log = structlog.get_logger(__name__)

TURN_S: Final = 30.0
"""How long until a domain is asked for again that could not be."""


class LabelKeeper:
    """`run` belongs to a task of its owner; `look_again` may be called at any time in the loop."""

    def __init__(
        self,
        domains: Domains,
        *,
        records: Callable[[], Sequence[Record]],
        verify: Callable[[], Awaitable[object]],
    ) -> None:
        """`verify` looks whether the steps of all claims hold, and applies again what does not."""
        self._domains = domains
        self._records = records
        self._verify = verify
        self._changed = asyncio.Event()
        self._served: frozenset[str] = frozenset()
        self._doubtful: set[str] = set()
        self.last_turn_s = 0.0

    def is_doubtful(self, domain: str) -> bool:
        """Whether the label may be gone, as far as is known here. From any thread."""
        return domain in self._doubtful

    def look_again(self) -> None:
        """Claims have come or gone."""
        self._changed.set()

    async def run(self) -> None:
        """Eternal."""
        while True:
            self.last_turn_s = asyncio.get_running_loop().time()
            self._changed.clear()
            await self._turn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN_S):
                    await self._changed.wait()

    async def _turn(self) -> None:
        records = self._records()
        served = frozenset(step.domain for _, step in daemons_of(records))
        self._doubtful |= self._served - served
        self._served = served
        joined = _joined(records)
        self._doubtful &= joined.keys() - served
        alive = [
            domain for domain in sorted(self._doubtful) if await self._is_there(joined, domain)
        ]
        if alive:
            log.info("daemon went before its workload, looking at the node's label", domains=alive)
            await self._verify()
            self._doubtful -= set(alive)

    async def _is_there(self, joined: dict[str, str], domain: str) -> bool:
        """A domain that is being deleted does not want its nodes back."""
        try:
            await self._domains.find(domain, namespace=joined[domain])
        except Permanent:
            self._doubtful.discard(domain)
            return False
        except AgentError as error:
            log.info("domain not found out about", domain=domain, cause=str(error))
            return False
        return True


def _joined(records: Sequence[Record]) -> dict[str, str]:
    """The domains that claims keep the node in, with the namespace of each."""
    return {
        entry.step.domain: record.claim.namespace
        for record in records
        for entry in record.steps
        if isinstance(entry.step, NodeLabelStep)
    }
