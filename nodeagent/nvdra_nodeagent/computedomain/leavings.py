"""Removes what domains leave on a node when the last claim that is about them is gone."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_nodeagent.computedomain.readiness import domains_in
from nvdra_nodeagent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nvdra_nodeagent.claims.record import Record
    from nvdra_nodeagent.computedomain.base_file import BaseFile
    from nvdra_nodeagent.computedomain.directories import DomainDirectories

log = structlog.get_logger(__name__)

_SWEEP_S: Final = 600.0
_DIRECTORY_GRACE_S: Final = 600.0


class DomainLeavings:
    """Directories of domains, and an earlier driver's base file. `run` belongs to its owner."""

    def __init__(
        self,
        directories: DomainDirectories,
        base: BaseFile,
        *,
        records: Callable[[], Sequence[Record]],
        fences: Callable[[], int],
    ) -> None:
        self._directories = directories
        self._base = base
        self._records = records
        self._fences = fences
        self.last_turn_s = 0.0

    async def run(self) -> None:
        """Eternal."""
        while True:
            self.last_turn_s = asyncio.get_running_loop().time()
            try:
                await self.sweep()
            except AgentError as error:
                log.warning("what domains left was not swept", error=str(error))
            await asyncio.sleep(_SWEEP_S)

    async def sweep(self) -> None:
        """Nothing goes while there are fences: nobody knows which domains those are about.

        :raises Retryable: the disk refuses.
        """
        records, fences = self._records(), self._fences()
        if await asyncio.to_thread(partial(self._base.sweep, records, fences=fences)):
            log.info("CDI file of an earlier driver removed", path=str(self._base.path))
        if fences:
            return
        keep = domains_in(records)
        gone = await asyncio.to_thread(
            self._directories.sweep, keep, older_than_s=_DIRECTORY_GRACE_S
        )
        if gone:
            log.info("directories of domains that are gone removed", domains=gone)
