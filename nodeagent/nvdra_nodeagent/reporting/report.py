"""A report that waits to be written, and to whom it is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_kube.occurrences import Severity
    from nvdra_nodeagent.claims.model import ClaimRef
    from nvdra_nodeagent.reporting.conditions import Readiness
    from nvdra_nodeagent.reporting.notices import Notice
    from nvdra_nodeagent.reporting.target import Target

ConditionPolicy: TypeAlias = Literal["failures", "always", "never"]
"""`failures`: only claims that failed, and their recovery; so a prepare costs no API write."""

PATIENCE_S: Final = 120.0


class Recorder(Protocol):
    """Writes Events in the background; counts repeats, limits their rate, never raises."""

    async def event(self, regarding: Body, *, type: Severity, reason: str, note: str) -> None: ...


@dataclass(slots=True, eq=False)
class Report:
    """What to write about a claim. Without `target` the claim is read first."""

    ref: ClaimRef
    notice: Notice | None
    made_s: float
    target: Target | None = None
    readiness: Readiness | None = None
    is_told: bool = False
    """Its Events are on their way."""

    def is_late(self) -> bool:
        return time.monotonic() - self.made_s > PATIENCE_S
