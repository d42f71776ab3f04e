"""What the daemons of this node say, as last read: asked by metrics, which may not wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from nvdra_nodeagent.computedomain.readiness import daemons_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.computedomain.daemon_words import DaemonWords
    from nvdra_nodeagent.computedomain.directories import DomainDirectories

log = structlog.get_logger(__name__)


class ImexView:
    """`words` by domain; daemons of an earlier driver say nothing here."""

    def __init__(
        self, directories: DomainDirectories, *, records: Callable[[], Sequence[Record]]
    ) -> None:
        self._directories = directories
        self._records = records
        self._words: Mapping[str, DaemonWords] = {}

    def words(self) -> Mapping[str, DaemonWords]:
        return self._words

    async def look(self) -> None:
        """Read anew, in a thread."""
        before, self._words = self._words, await asyncio.to_thread(self._read)
        for domain, words in self._words.items():
            was = before.get(domain)
            if words.domain and (was is None or was.domain_state != words.domain_state):
                told = {"connected": words.connected()[0], "nodes": words.connected()[1]}
                log.info("IMEX domain", domain=domain, state=words.domain_state, **told)

    def _read(self) -> dict[str, DaemonWords]:
        return {
            step.domain: self._directories.words(step.domain, claim_uid=step.claim_uid)
            for _, step in daemons_of(self._records())
            if step.protocol and step.clique
        }
