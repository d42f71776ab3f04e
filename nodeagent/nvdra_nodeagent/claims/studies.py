"""What is looked up for a claim before anything is locked: the claim itself, and what it would get.

A claim that waits for something is tried again every second or so. It goes by what was looked up
for a while then, so that claims that wait do not keep the API server busy.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.claims.allocation import parse_claim

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.allocation import AllocatedClaim
    from nvdra_nodeagent.claims.books import NodeFacts
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.plan import Study
    from nvdra_nodeagent.claims.reader import ClaimReader

KEPT_S: Final = 10.0


class Studies:
    """Each is kept until its owner says `forget`, at the end of the work on the claim."""

    def __init__(
        self, reader: ClaimReader, *, node: NodeFacts, on_seen: Callable[[ClaimRef, Body], None]
    ) -> None:
        """`on_seen` is told each claim as the API gave it."""
        self._reader = reader
        self._node = node
        self._on_seen = on_seen
        self._kept: dict[str, tuple[AllocatedClaim, Study, float]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def of(self, ref: ClaimRef, *, is_waiting: bool) -> tuple[AllocatedClaim, Study]:
        """One that `is_waiting` may get what was looked up less than `KEPT_S` ago.

        :raises AgentError: the claim cannot be had, is not ours, or asks for what is not there.
        """
        now_s = asyncio.get_running_loop().time()
        if is_waiting and ref.uid in self._kept:
            claim, study, since_s = self._kept[ref.uid]
            if now_s - since_s < KEPT_S:
                return claim, study
        body = await self._reader.get(ref)
        self._on_seen(ref, body)
        claim = parse_claim(body, ref=ref, driver=self._node.planner.driver, pool=self._node.pool)
        study = await self._node.planner.study(claim)
        self._kept[ref.uid] = claim, study, now_s
        return claim, study

    def forget(self, uid: str) -> None:
        self._kept.pop(uid, None)
