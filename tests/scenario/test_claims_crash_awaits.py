"""Cancelled at every single await: locks are free, and the next call finds nothing in its way."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest

from nvdra_kube.errors import ServerError
from nvdra_nodeagent.steps.registry import step_kinds
from nvdra_testing.claims import gpu_uuid
from nvdra_testing.crash_cases import REF, RIVAL, Scene, cases_of
from nvdra_testing.file_points import tree
from nvdra_testing.suspensions import Suspensions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from nvdra_nodeagent.claims.service import NodeClaims

_HELD_S: Final = 0.005
_DEADLINE_S: Final = 60.0


async def nothing(scene: Scene, agent: NodeClaims) -> None: ...


async def api_fails_once(scene: Scene, agent: NodeClaims) -> None:
    scene.node.api.errors.append(ServerError("etcd", status=500))


async def busy_here(scene: Scene, agent: NodeClaims) -> None:
    """Another claim of this agent is being worked on, on the same GPU."""
    await _hold_for_a_while(agent)


async def busy_elsewhere(scene: Scene, agent: NodeClaims) -> None:
    """The claim is being worked on by another agent."""
    await _hold_for_a_while(await scene.agent(), REF.uid)


async def _hold_for_a_while(agent: NodeClaims, *claims: str) -> None:
    loop, stack = asyncio.get_running_loop(), AsyncExitStack()
    locks, deadline = agent._place.locks, loop.time() + _DEADLINE_S
    for uid in claims:
        await stack.enter_async_context(locks.claim(uid, deadline=deadline))
    await stack.enter_async_context(locks.gpus([gpu_uuid(0)], deadline=deadline))

    async def let_go() -> None:
        async with stack:
            await asyncio.sleep(_HELD_S)

    _keepers.add(task := asyncio.create_task(let_go(), name="keeper"))
    task.add_done_callback(_keepers.discard)


_keepers: set[asyncio.Task[None]] = set()
TROUBLES = {each.__name__: each for each in (nothing, api_fails_once, busy_here, busy_elsewhere)}
CASES = [
    *((kind, "nothing") for kind in step_kinds()),
    *(("time_slice", trouble) for trouble in TROUBLES if trouble != "nothing"),
]
"""Trouble comes before the first step, of whatever kind."""
WHO = {"caller": "caller", "work": "{operation} {ref}"}


@pytest.mark.parametrize(("kind", "trouble"), CASES)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("operation", ["prepare", "unprepare"])
async def test_a_call_cancelled_at_each_of_its_awaits(
    kind: str, operation: str, who: str, trouble: str, tmp_path: Path
) -> None:
    case, name = cases_of([kind])[kind], WHO[who].format(operation=operation, ref=REF)
    undisturbed = await _tree_of(Scene(tmp_path / "undisturbed", case))
    for at in itertools.count(1):
        scene, suspensions = Scene(tmp_path / str(at), case), Suspensions(name, at=at)
        await _cancelled(scene, operation, suspensions, TROUBLES[trouble])
        assert await _tree_of(scene) == undisturbed
        if not suspensions.cancelled:
            break
    assert at > (1 if who == "caller" else 2 if operation == "prepare" else 1)


async def _cancelled(
    scene: Scene,
    operation: str,
    suspensions: Suspensions,
    trouble: Callable[[Scene, NodeClaims], Awaitable[None]],
) -> None:
    agent = scene.node.agent(retry_budget_s=30.0)
    if operation == "unprepare":
        await agent.prepare([REF])
    await trouble(scene, agent)
    with suspensions.watched():
        work = agent.prepare([REF]) if operation == "prepare" else agent.unprepare([REF])
        await asyncio.wait([asyncio.create_task(work, name="caller")])
        while agent.oldest_work(now_s=0.0)[0] or _keepers:
            await asyncio.sleep(0.001)
    assert not [line for line in agent.describe(now_s=0.0) if line.startswith("lock")]
    if operation == "unprepare":
        assert await agent.unprepare([REF]) == {REF.uid: None}
        assert scene.node.files() == []


async def _tree_of(scene: Scene) -> dict[str, str]:
    """After a prepare; and nothing is left by the unprepare that follows."""
    agent = scene.node.agent(retry_budget_s=30.0)
    assert isinstance((await agent.prepare([REF]))[REF.uid], tuple)
    found = tree(scene.node.root, temporaries=True)
    assert await agent.unprepare([REF]) == {REF.uid: None}
    assert scene.node.files() == []
    assert isinstance((await agent.prepare([RIVAL]))[RIVAL.uid], tuple)
    await scene.node.close()
    return found
