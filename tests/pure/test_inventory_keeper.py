"""The inventory over time: what a later look at the hardware may change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_nodeagent.inventory.keeper import InventoryKeeper
from nvdra_sim.hardware import SimulatedHardware

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.inventory.model import Inventory

UNKNOWN_ERROR = 999


def a_keeper(hardware: SimulatedHardware) -> tuple[InventoryKeeper, list[Inventory]]:
    told: list[Inventory] = []
    return InventoryKeeper(hardware.machine, on_change=told.append), told


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
