"""Writes a domain's status, no more often than it helps, and tells of transitions in Events."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.errors import NotFound
from nvdra_operator.domains.status import (
    CONDITION_ACCEPTED,
    CONDITION_READY,
    merged_status,
    same_nodes,
    same_status,
)
from nvdra_operator.resources import COMPUTE_DOMAINS

if TYPE_CHECKING:
    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.events import EventRecorder
    from nvdra_operator.domains.expectations import Expectations
    from nvdra_operator.domains.status import Assessment, Finding

log = structlog.get_logger(__name__)

# Each write carries all nodes: a thousand of them are 180 KiB, and each watcher gets them.
_NODES_PER_S: Final = 500
_SMALL: Final = 20
# How nodes are waited for changes with each step of theirs: what passes so soon is not written.
_LASTING_S: Final = 2.0
_LASTING_PER_NODE_S: Final = 0.02


class Reporter:
    """Of one domain. Remembers what it wrote: a server that prunes fields is not asked again."""

    def __init__(self, api: KubeApi, recorder: EventRecorder) -> None:
        self._api = api
        self._recorder = recorder
        self._conditions: list[Body] = []
        self._written: tuple[Body, Body] | None = None
        self._wrote_s = float("-inf")
        self._differs_since_s: float | None = None

    async def report(
        self,
        domain: Body,
        assessment: Assessment,
        *,
        expectations: Expectations,
        shared: bool = False,
    ) -> float:
        """Write the status where it differs. Returns seconds to wait where it is too soon.

        `shared`: others write it as well, and must not lose what they wrote. Raises `ApiError`.
        """
        found = domain.get("status") or {}
        old = {**found, "conditions": found.get("conditions") or self._conditions}
        wanted = merged_status(
            assessment,
            old,
            generation=domain["metadata"].get("generation") or 0,
            now=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        if same_status(wanted, found) or self._is_pruned(wanted, found):
            self._differs_since_s = None
            return 0.0
        if (wait_s := self._too_soon_s(wanted, found, old["conditions"])) > 0:
            return wait_s
        await self._write(domain, wanted, expectations, shared=shared)
        await self._tell(domain, assessment, old["conditions"])
        self._conditions = wanted["conditions"]
        return 0.0

    def _is_pruned(self, wanted: Body, found: Body) -> bool:
        """Whether this is what the server made of the same wish before."""
        return self._written is not None and self._written == (wanted, found)

    def _too_soon_s(self, wanted: Body, found: Body, conditions: list[Body]) -> float:
        """How long to wait for more changes before the status is written; not positive to write."""
        if wanted["status"] != found.get("status"):
            return 0.0
        now_s = _now_s()
        if same_nodes(wanted, found) and _verdict(wanted["conditions"]) == _verdict(conditions):
            if self._differs_since_s is None:
                self._differs_since_s = now_s
            lasting_s = _LASTING_S + len(wanted["nodes"]) * _LASTING_PER_NODE_S
            return self._differs_since_s + lasting_s - now_s
        if len(wanted["nodes"]) <= _SMALL:
            return 0.0
        return self._wrote_s + len(wanted["nodes"]) / _NODES_PER_S - now_s

    async def _write(
        self, domain: Body, wanted: Body, expectations: Expectations, *, shared: bool
    ) -> None:
        meta = domain["metadata"]
        guard = "resourceVersion" if shared else "uid"
        patch = {"metadata": {guard: meta[guard]}, "status": wanted}
        try:
            body = await self._api.patch(
                COMPUTE_DOMAINS,
                meta["name"],
                patch,
                namespace=meta["namespace"],
                subresource="status",
            )
        except NotFound:
            return  # deleted meanwhile
        self._wrote_s, self._differs_since_s = _now_s(), None
        self._written = (wanted, body.get("status") or {})
        expectations.wrote(COMPUTE_DOMAINS, body, now_s=_now_s())

    async def _tell(self, domain: Body, assessment: Assessment, old: list[Body]) -> None:
        known = {one["type"]: (one["status"], one["reason"]) for one in old if "type" in one}
        for finding in assessment.findings:
            before = known.get(finding.type)
            if before == (finding.status, finding.reason):
                continue
            log.info(
                "domain changed",
                domain=f"{domain['metadata']['namespace']}/{domain['metadata']['name']}",
                condition=finding.type,
                holds=finding.holds,
                reason=finding.reason,
            )
            if before is not None or _is_alarming(finding):
                await self._recorder.event(
                    domain,
                    type="Normal" if finding.holds else "Warning",
                    reason=finding.reason,
                    note=finding.message,
                )


def _verdict(conditions: list[Body]) -> tuple[object, object]:
    """What the condition says that people wait for, without the wording."""
    ready = next((one for one in conditions if one.get("type") == CONDITION_READY), {})
    return ready.get("status"), ready.get("reason")


def _is_alarming(finding: Finding) -> bool:
    """What a new domain says about itself is no news, unless it cannot work."""
    return finding.type == CONDITION_ACCEPTED and not finding.holds


def _now_s() -> float:
    return asyncio.get_running_loop().time()
