"""The inventory over time: taken at start, taken again while something could not be read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from nvdra_nodeagent.hardware.errors import HardwareError
from nvdra_nodeagent.inventory.model import Defect, Inventory
from nvdra_nodeagent.inventory.snapshot import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.hardware.ports import Machine

log = structlog.get_logger(__name__)

_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 30.0


class InventoryKeeper:
    """Holds the newest snapshot and tells `on_change` when it differs from the one before.

    A node whose driver is missing has an empty inventory with one defect, until it answers. A
    driver that stops answering says nothing about the GPUs: they stay as last seen.
    """

    def __init__(self, machine: Machine, *, on_change: Callable[[Inventory], None]) -> None:
        self._machine = machine
        self._on_change = on_change
        self._current: Inventory | None = None

    @property
    def current(self) -> Inventory:
        """The newest snapshot; empty before the first one."""
        return self._current or Inventory()

    @property
    def is_known(self) -> bool:
        """Whether there was a snapshot."""
        return self._current is not None

    async def run(self) -> None:
        """Snapshots until one has no defects; the pause between two doubles up to 30 s."""
        pause_s = _FIRST_RETRY_S
        while True:
            await self.refresh()
            if not self.current.defects:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_RETRY_S)

    async def refresh(self) -> Inventory:
        """Take one snapshot now. Never raises for hardware: what failed is a defect."""
        inventory = await asyncio.to_thread(_snapshot, self._machine, last=self.current)
        if inventory != self._current:
            self._note_new_defects(inventory)
            self._current = inventory
            self._on_change(inventory)
        return inventory

    def _note_new_defects(self, inventory: Inventory) -> None:
        """Each cause once, not at every attempt."""
        for defect in sorted(set(inventory.defects) - set(self.current.defects), key=str):
            log.warning(
                "cannot read the hardware",
                device=defect.device,
                attribute=defect.attribute or "everything",
                cause=defect.cause,
            )


def _snapshot(machine: Machine, *, last: Inventory) -> Inventory:
    try:
        return take_snapshot(machine)
    except HardwareError as error:
        return replace(last, defects=(Defect(device="node", attribute="", cause=str(error)),))
