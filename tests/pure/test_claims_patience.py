"""How often a failing claim is tried before the kubelet hears of it. On fake time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

import pytest

from nvdra_nodeagent.claims.patience import Patience
from nvdra_nodeagent.errors import AgentError, NodeFault, Permanent, Retryable
from nvdra_testing.claims import a_ref

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

BUSY = Retryable("ApiUnavailable", "the API is away")
BROKEN = NodeFault("CdiHookMissing", "no hook")
WRONG = Permanent("InvalidConfig", "no such strategy")


def failing(error: AgentError) -> Callable[[float], Awaitable[NoReturn]]:
    async def attempt(deadline: float) -> NoReturn:
        raise error

    return attempt


async def told_after(error: AgentError, patience: Patience) -> float:
    """Seconds until the error is handed on."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(type(error)):
        await patience.persevere(failing(error), claim=a_ref())
    return loop.time() - started


async def test_what_passes_by_itself_is_tried_for_most_of_the_kubelets_time() -> None:
    assert 27 <= await told_after(BUSY, Patience(budget_s=30.0)) <= 30


async def test_what_somebody_has_to_mend_is_told_soon() -> None:
    assert 2 <= await told_after(BROKEN, Patience(budget_s=30.0, fault_budget_s=5.0)) <= 5


async def test_what_is_wrong_for_good_is_told_at_once() -> None:
    assert await told_after(WRONG, Patience()) == 0


async def test_the_end_of_patience_cuts_a_pause_short() -> None:
    patience = Patience(budget_s=30.0)
    asyncio.get_running_loop().call_later(10.0, patience.end)
    assert await told_after(BUSY, patience) == pytest.approx(10.0)
    assert await told_after(BUSY, patience) == 0


async def test_why_a_claim_is_tried_again_is_known_while_it_is_and_no_longer() -> None:
    patience = Patience(budget_s=30.0)
    trying = asyncio.create_task(patience.persevere(failing(BUSY), claim=a_ref()))
    await asyncio.sleep(1.0)
    assert patience.last_failure(a_ref().uid) is BUSY
    await asyncio.wait([trying])
    assert trying.exception() is BUSY
    assert patience.last_failure(a_ref().uid) is None


async def test_a_claim_that_is_given_up_by_its_caller_leaves_nothing_behind() -> None:
    patience = Patience(budget_s=30.0)
    trying = asyncio.create_task(patience.persevere(failing(BUSY), claim=a_ref()))
    await asyncio.sleep(1.0)
    trying.cancel()
    await asyncio.wait([trying])
    assert patience.last_failure(a_ref().uid) is None
