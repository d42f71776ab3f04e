"""What the kubelet asks for and what it gets back, free of any wire format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nvdra_nodeagent.errors import AgentError


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """A claim as the kubelet names it. The object itself may be gone."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        """Some are known by their UID only."""
        return f"{self.namespace}/{self.name}:{self.uid}" if self.name else self.uid


@dataclass(frozen=True, slots=True)
class PreparedDevice:
    """One allocated device, ready for containers.

    `requests` are main request names (a sub-request `main/sub` is reported as `main`); `cdi_ids`
    are fully qualified; `share_id` is set for devices with consumable capacity.
    """

    requests: tuple[str, ...]
    pool: str
    device: str
    cdi_ids: tuple[str, ...]
    share_id: str | None = None


class ClaimService(Protocol):
    """The claims of this node. Calls never raise for a single claim: errors are values.

    Both calls answer for every UID asked. They may be repeated, overlap, and be cancelled by the
    caller at any time; the work goes on and the next call for the same claim joins it.
    """

    async def prepare(
        self, claims: Sequence[ClaimRef]
    ) -> Mapping[str, tuple[PreparedDevice, ...] | AgentError]:
        """Prepared devices in allocation order, by claim UID."""
        ...

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, AgentError | None]:
        """None where the claim is gone from this node; an unknown claim is success."""
        ...
