"""What the daemon tells the node agent: `ready.json` and `domain.json`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nvdra_nodeagent.imex import storage
from nvdra_nodeagent.imex.inputs import VERSION

if TYPE_CHECKING:
    from nvdra_nodeagent.imex.inputs import Settings
    from nvdra_nodeagent.imex.logs import Log
    from nvdra_nodeagent.imex.status import DomainHealth, Verdict


class Report:
    """One file that always has to say what it was last told; others may remove or replace it."""

    def __init__(self, path: str, *, log: Log) -> None:
        self._path = path
        self._log = log
        self._written: tuple[bytes, storage.Mark | None] | None = None
        self.problem = ""

    def say(self, document: dict[str, object]) -> None:
        """Write it unless it stands there. A failure is logged once and tried again."""
        data = json.dumps(document).encode() + b"\n"
        if self._written == (data, storage.mark(self._path)) and self._written[1]:
            return
        try:
            storage.write_if_other(self._path, data)
        except OSError as error:
            if str(error) != self.problem:
                self._log.error("cannot report to the node agent", cause=error)
            self.problem = str(error)
            return
        self.problem = ""
        self._written = (data, storage.mark(self._path))


def readiness(settings: Settings, verdict: Verdict, *, generation: int) -> dict[str, object]:
    """`ready.json`. Claim and boot keep the agent from believing an earlier daemon's file."""
    return {
        **_whose(settings),
        "ready": verdict.ready,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "generation": generation,
    }


def health(settings: Settings, found: DomainHealth) -> dict[str, object]:
    """`domain.json`."""
    return {
        **_whose(settings),
        "state": found.state,
        "nodes": [
            {
                "index": node.slot,
                "host": node.host,
                "state": node.state,
                "connection": node.connection,
            }
            for node in found.nodes
        ],
    }


def _whose(settings: Settings) -> dict[str, object]:
    return {"version": VERSION, "claimUID": settings.claim_uid, "bootID": settings.boot_id}
