"""What is looked up for a claim is kept while it waits, for a while, and then forgotten."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from nvdra_nodeagent.claims.books import NodeFacts
from nvdra_nodeagent.claims.plan import GpuPlanner, PlanRules
from nvdra_nodeagent.claims.reader import ClaimReader
from nvdra_nodeagent.claims.studies import KEPT_S, Studies
from nvdra_nodeagent.errors import Permanent
from nvdra_testing.claims import BOOT, DRIVER, GATES, NODE, ClaimApi, a_node_of, a_ref, cdi_id

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_nodeagent.claims.model import ClaimRef

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


class Desk:
    """Studies of the claims of an API that counts how often it is asked."""

    def __init__(self) -> None:
        self.api = ClaimApi()
        self.seen: list[str] = []
        inventory = a_node_of()
        planner = GpuPlanner(
            PlanRules(driver=DRIVER, gates=GATES, cdi_id=cdi_id), lambda: inventory
        )
        facts = NodeFacts(pool=NODE, planner=planner, boot_id=BOOT, inventory=lambda: inventory)
        self.studies = Studies(ClaimReader(self.api), node=facts, on_seen=self._see)

    def _see(self, ref: ClaimRef, body: Body) -> None:
        self.seen.append(ref.uid)

    async def look_up(self, ref: ClaimRef, *, is_waiting: bool) -> int:
        """How often the API was asked for it."""
        before = len(self.api.calls)
        claim, _ = await self.studies.of(ref, is_waiting=is_waiting)
        assert claim.ref == ref
        return len(self.api.calls) - before


async def test_a_claim_that_waits_does_not_ask_again() -> None:
    desk = Desk()
    ref = desk.api.add(a_ref())
    assert await desk.look_up(ref, is_waiting=True) > 0
    assert await desk.look_up(ref, is_waiting=True) == 0
    assert desk.seen == [ref.uid]


async def test_a_claim_that_failed_otherwise_is_read_anew() -> None:
    desk = Desk()
    ref = desk.api.add(a_ref())
    await desk.look_up(ref, is_waiting=False)
    assert await desk.look_up(ref, is_waiting=False) > 0


async def test_what_was_looked_up_grows_old() -> None:
    desk = Desk()
    ref = desk.api.add(a_ref())
    await desk.look_up(ref, is_waiting=True)
    await asyncio.sleep(KEPT_S)
    assert await desk.look_up(ref, is_waiting=True) > 0


async def test_what_is_forgotten_takes_no_memory() -> None:
    desk = Desk()
    ref = desk.api.add(a_ref())
    await desk.look_up(ref, is_waiting=True)
    desk.studies.forget(ref.uid)
    assert len(desk.studies) == 0
    assert await desk.look_up(ref, is_waiting=True) > 0


async def test_a_claim_that_cannot_be_had_leaves_nothing() -> None:
    desk = Desk()
    with pytest.raises(Permanent, match="not"):
        await desk.studies.of(a_ref(), is_waiting=False)
    assert len(desk.studies) == 0
