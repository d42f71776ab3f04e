"""Failures of claims that say something about the hardware: the inventory should be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.claims.observer import ClaimObserver

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.claims.observer import Attempt
    from nvdra_nodeagent.errors import AgentError

TELLING: Final = frozenset(
    {
        "CdiIncomplete",
        "DeviceChanged",
        "DeviceNodeMissing",
        "DeviceNotFound",
        "DriverChanging",
        "DriverMissing",
        "GpuLost",
        "GpuSettingFailed",
    }
)
"""Reasons that may mean that the inventory is behind the hardware."""


class Suspicion(ClaimObserver):
    """Passes on what claims met; `suspect` is told why to look."""

    def __init__(self, suspect: Callable[[str], None]) -> None:
        self._suspect = suspect

    def failed(self, attempt: Attempt, *, error: AgentError) -> None:
        self._hear(attempt.ref, error)

    def tombstone(self, ref: ClaimRef, *, error: AgentError | None) -> None:
        if error:
            self._hear(ref, error)

    def _hear(self, ref: ClaimRef, error: AgentError) -> None:
        if error.reason in TELLING:
            self._suspect(f"claim {ref.uid} met {error.reason}")
