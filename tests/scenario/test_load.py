"""A whole agent, as a process, with 64 claims in flight and trouble all around it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from nvdra_testing.load import GATES, GPUS, LANES, Load
from nvdra_testing.process_node import a_process_node

if TYPE_CHECKING:
    from pathlib import Path

CYCLES = 2


@pytest.mark.timeout(300)
async def test_all_claims_are_served_in_the_end_and_nothing_is_left(tmp_path: Path) -> None:
    async with a_process_node(tmp_path) as node, node.running(*GATES) as agent:
        await node.wait_devices(GPUS)
        load = Load(node, await asyncio.to_thread(node.hardware), seed=6)
        await load.run(cycles=CYCLES)
        assert load.tally.unprepared == LANES * CYCLES
        assert load.tally.most_in_flight == LANES
        assert len(load.tally.troubles) == 4
        assert agent.starts == 1
        await node.wait_devices(GPUS)
