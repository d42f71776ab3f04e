"""Looks at one machine again and again: begins NVML anew where it has to, keeps what is known."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_nodeagent.hardware.errors import GpuLost, HardwareError, NvmlError, SessionLost
from nvdra_nodeagent.inventory.memory import Memory
from nvdra_nodeagent.inventory.model import Defect, Inventory
from nvdra_nodeagent.inventory.snapshot import take_survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.hardware.ports import Machine
    from nvdra_nodeagent.inventory.snapshot import Survey

log = structlog.get_logger(__name__)

# A session that began while a GPU was lost never finds it again, but beginning one costs the
# driver seconds, and closes GPUs that nobody else holds open.
_FIRST_RENEWAL_S: Final = 5.0
_LAST_RENEWAL_S: Final = 600.0

_Signature: TypeAlias = tuple[str, tuple[str, ...]]


class Surveyor:
    """For one thread at a time: it blocks as long as the driver does."""

    def __init__(self, machine: Machine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._machine = machine
        self._clock = clock
        self._memory = Memory()
        self._signature: _Signature | None = None
        self._lost: frozenset[int] = frozenset()
        self._renewals = Backoff(first_s=_FIRST_RENEWAL_S, limit_s=_LAST_RENEWAL_S)
        self._renewal_due_s = 0.0

    def look(self) -> Inventory:
        """The machine now. Never raises for hardware: what failed is a defect, and what was known
        of it stays."""
        for announcer in self._machine.announcers:
            announcer.arm()
        try:
            self._memory = self._memory.after(self._survey())
        except HardwareError as error:
            defect = Defect(device="node", attribute="", cause=str(error))
            last = self._memory.inventory
            self._memory = replace(self._memory, inventory=replace(last, defects=(defect,)))
        return self._memory.inventory

    def _survey(self) -> Survey:
        """:raises HardwareError: there is no driver to ask."""
        module = self._machine.driver_module
        signature = (module.load(), module.gpus())
        if self._is_renewal_due(signature):
            self._renew()
        self._signature = signature
        try:
            survey = take_survey(self._machine)
        except SessionLost as error:
            survey = self._again(error)
        else:
            if survey.session_lost:
                survey = self._again(survey.session_lost)
        self._note_lost(survey)
        return survey

    def _again(self, error: SessionLost) -> Survey:
        log.info("NVML is initialised again", cause=str(error))
        self._renew()
        return take_survey(self._machine)

    def _is_renewal_due(self, signature: _Signature) -> bool:
        """GPUs that come after a session began are not in it; neither is one that was reset."""
        if self._signature is not None and signature != self._signature:
            return True
        return bool(self._lost) and self._clock() >= self._renewal_due_s

    def _renew(self) -> None:
        try:
            self._machine.nvml.shutdown()
        except NvmlError as error:
            log.warning("NVML not shut down", cause=str(error))

    def _note_lost(self, survey: Survey) -> None:
        lost = frozenset(
            index for index, seat in enumerate(survey.seats) if isinstance(seat, GpuLost)
        )
        if lost != self._lost:
            self._renewals.succeeded()
            self._renewal_due_s = 0.0
        self._lost = lost
        if lost and self._clock() >= self._renewal_due_s:
            self._renewal_due_s = self._clock() + self._renewals.failed()
