"""Which feature gates a server of some version has on, as far as served fields depend on them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The minor release in which a gate's default became "on"; None: off in all of them.
_ON_SINCE: Mapping[str, tuple[int, int] | None] = {
    "DRAAdminAccess": (1, 34),
    "DRAConsumableCapacity": (1, 36),
    "DRADeviceBindingConditions": (1, 36),
    "DRADeviceTaints": (1, 36),
    "DRAExtendedResource": (1, 36),
    "DRAListTypeAttributes": None,
    "DRANodeAllocatableResources": None,
    "DRAPartitionableDevices": (1, 36),
    "DRAPrioritizedList": (1, 34),
    "DRAResourceClaimDeviceStatus": (1, 33),
}

_VERSION = re.compile(r"^v?(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """What this server claims to be. `overrides` are gates switched by hand."""

    version: str = "v1.36.3"
    overrides: Mapping[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _VERSION.match(self.version):
            raise ValueError(f"server version {self.version!r} does not look like v1.36.3")
        if unknown := sorted(set(self.overrides) - set(_ON_SINCE)):
            raise ValueError(
                f"unknown server feature gates {', '.join(unknown)}; known: {', '.join(_ON_SINCE)}"
            )

    @property
    def minor(self) -> tuple[int, int]:
        found = _VERSION.match(self.version)
        assert found, "checked on construction"
        return int(found[1]), int(found[2])

    def enabled(self, gate: str) -> bool:
        if gate in self.overrides:
            return self.overrides[gate]
        since = _ON_SINCE[gate]
        return since is not None and self.minor >= since

    def served_versions(self) -> tuple[str, ...]:
        """Versions of resource.k8s.io: the newest first, betas always switched on."""
        if self.minor >= (1, 34):
            return ("v1", "v1beta2", "v1beta1")
        return ("v1beta2", "v1beta1") if self.minor == (1, 33) else ("v1beta1",)
