"""The agent's memory over as many claims as an hour brings, each of them new to the agent.

A node that starts and ends a pod a second for an hour prepares and unprepares 3,600 claims.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .agent import RunningAgent, running_agent
from .figures import print_document, progress, rounded
from .kubelet import connected
from .setting import a_setting, rounds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAIMS = 3600
QUICK_CLAIMS = 160
IN_FLIGHT = 8
LOOKS = 6
SETTLE_S = 2.0
ENDPOINTS = ("--http-endpoint", "127.0.0.1:0", "--healthcheck-port", "0")


def main(argv: Sequence[str]) -> None:
    options = rounds_of("churn", argv, rounds=1, quick=1)
    print_document(asyncio.run(_measure(QUICK_CLAIMS if options.quick else CLAIMS)))


async def _measure(claims: int) -> dict[str, Any]:
    """Growth is from the middle look to the last: until then caches and pools are filled."""
    async with (
        a_setting(claims_per_lane=claims // IN_FLIGHT) as setting,
        running_agent(setting.node, *ENDPOINTS) as agent,
        connected(setting.node.socket, setting.claims) as driver,
    ):
        await asyncio.sleep(SETTLE_S)
        looks = [_look(agent, 0)]
        for number in range(LOOKS):
            await driver.loop(IN_FLIGHT, cycles=claims // LOOKS)
            looks.append(_look(agent, (number + 1) * (claims // LOOKS)))
            progress(str(looks[-1]))
    middle, last = looks[LOOKS // 2], looks[-1]
    return {
        "looks": looks,
        "growth_after_half_mib": {
            name: rounded(last[name] - middle[name]) for name in ("resident", "anonymous")
        },
        "threads": last["threads"] - middle["threads"],
        "files": last["files"] - middle["files"],
        "claims": claims,
    }


def _look(agent: RunningAgent, claims: int) -> dict[str, float]:
    sizes = {name: rounded(mib) for name, mib in agent.memory_mib().items()}
    return {"claims": claims, **sizes, "threads": agent.threads(), "files": agent.files()}
