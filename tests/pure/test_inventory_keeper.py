"""The inventory over time: when it looks, whom it tells, and what a driver that hangs holds up."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from nvdra_nodeagent.hardware.ports import Machine
from nvdra_nodeagent.inventory.keeper import InventoryKeeper
from nvdra_sim.hardware import SimulatedHardware
from nvdra_testing.agent import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nvdra_nodeagent.inventory.model import Inventory

UNKNOWN_ERROR = 999


def a_keeper(
    hardware: SimulatedHardware | Machine, **options: Any
) -> tuple[InventoryKeeper, list[Inventory]]:
    told: list[Inventory] = []
    machine = hardware if isinstance(hardware, Machine) else hardware.machine
    return InventoryKeeper(machine, on_change=told.append, **options), told


@asynccontextmanager
async def running(
    hardware: SimulatedHardware | Machine, **options: Any
) -> AsyncIterator[InventoryKeeper]:
    keeper, _ = a_keeper(hardware, **options)
    task = asyncio.create_task(keeper.run(), name="inventory")
    try:
        await until(lambda: keeper.is_known, or_done=task)
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def gpus(keeper: InventoryKeeper) -> list[int]:
    return [gpu.minor for gpu in keeper.current.gpus]


def looked_s(keeper: InventoryKeeper) -> float:
    """When the last look ended, give or take the moment that it takes to ask."""
    return asyncio.get_running_loop().time() - keeper.age_s


async def test_a_driver_that_stops_answering_takes_no_gpu_away(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    keeper, _ = a_keeper(hardware)
    before = await keeper.refresh()
    hardware.inject(call="device_count", code=UNKNOWN_ERROR)
    after = await keeper.refresh()
    assert after.gpus == before.gpus
    assert [defect.device for defect in after.defects] == ["node"]


async def test_a_driver_that_never_answered_leaves_an_empty_inventory(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    hardware.inject(call="device_count", code=UNKNOWN_ERROR)
    keeper, _ = a_keeper(hardware)
    assert not keeper.is_known
    assert (await keeper.refresh()).gpus == ()
    assert keeper.is_known


async def test_what_did_not_change_is_told_once(tmp_path: Path) -> None:
    keeper, told = a_keeper(SimulatedHardware.open("a10", tmp_path))
    await keeper.refresh()
    await keeper.refresh()
    assert len(told) == 1


async def test_looks_that_are_asked_for_at_once_are_one(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    hardware.inject(call="device_count", code=0, latency_s=0.2)
    keeper, _ = a_keeper(hardware)
    first, second = await asyncio.gather(keeper.refresh(), keeper.refresh())
    assert first is second


async def test_a_change_is_seen_at_the_next_interval(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    deaf = replace(hardware.machine, announcers=())
    async with running(deaf, interval_s=0.05) as keeper:
        hardware.remove(1)
        await until(lambda: gpus(keeper) == [0, 2, 3])


async def test_a_change_that_is_announced_is_seen_long_before_the_interval(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    async with running(hardware, interval_s=3600.0) as keeper:
        hardware.remove(1)
        await until(lambda: gpus(keeper) == [0, 2, 3])
        hardware.insert(1)
        await until(lambda: gpus(keeper) == [0, 1, 2, 3])


async def test_a_driver_that_comes_late_is_seen_long_before_the_interval(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    hardware.driver.unload()
    hardware.driver.uninstall()
    async with running(hardware, interval_s=3600.0) as keeper:
        assert keeper.current.gpus == ()
        hardware.driver.install("599.1")
        hardware.driver.load()
        await until(lambda: len(keeper.current.gpus) == 4)


async def test_a_suspicion_from_another_thread_leads_to_a_look(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    async with running(hardware, interval_s=3600.0) as keeper:
        with capture_logs() as lines:
            before_s = looked_s(keeper)
            threading.Thread(target=keeper.suspect, args=("GPU 1 answered GpuLost",)).start()
            await until(lambda: looked_s(keeper) > before_s + 0.01)
    assert lines[0]["reason"] == "GPU 1 answered GpuLost"


async def test_a_failure_that_is_over_at_once_is_hardly_seen(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    hardware.inject(call="uuid", gpu=2, code=UNKNOWN_ERROR, times=1)
    async with running(hardware, interval_s=3600.0) as keeper:
        await until(lambda: len(keeper.current.gpus) == 4 and not keeper.current.defects)


async def test_a_call_that_hangs_is_said_and_what_was_known_stays(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    keeper, _ = a_keeper(hardware, patience_s=0.05)
    await keeper.refresh()
    hardware.inject("device", gpu=1, hang=True)
    with capture_logs() as lines:
        looking = asyncio.create_task(keeper.refresh(), name="look that hangs")
        await until(lambda: keeper.current.defects)
        assert gpus(keeper) == [0, 1, 2, 3]
        assert "has not returned" in keeper.current.defects[0].cause
        age_s = keeper.age_s
        await until(lambda: keeper.age_s > age_s + 0.1)
        hardware.heal()
        await looking
        await keeper.refresh()
    assert sum(line["event"] == "the driver does not answer" for line in lines) == 1
    assert keeper.current.defects == ()


async def test_a_call_that_hangs_keeps_nobody_from_ending(tmp_path: Path) -> None:
    hardware = SimulatedHardware.open("a10", tmp_path)
    hardware.inject("device_count", hang=True)
    keeper, told = a_keeper(hardware, patience_s=0.01)
    task = asyncio.create_task(keeper.run(), name="inventory")
    with capture_logs() as lines:
        await until(lambda: lines)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not keeper.is_known  # an empty pool would be wrong: nothing is known of the hardware
    assert told == []
    hardware.heal()
