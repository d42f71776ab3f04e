"""Who holds which device: read from the allocations of all claims."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nvdra_sim.cluster.scheduler.capacity import amount_of
from nvdra_sim.cluster.scheduler.pools import DeviceId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nvdra_kube.api import Body


@dataclass(frozen=True, slots=True)
class Usage:
    """Devices that are taken. Results with admin access hold nothing and are left out.

    `holders` names the claims of each device, `consumed` the capacity of each share of it.
    """

    holders: Mapping[DeviceId, tuple[str, ...]] = field(default_factory=dict)
    consumed: Mapping[DeviceId, tuple[Mapping[str, int], ...]] = field(default_factory=dict)


def claim_key(claim: Body) -> str:
    """`namespace/name`, as messages name a claim."""
    metadata = claim["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"


def results_of(claim: Body) -> list[Body]:
    """The allocated devices of a claim, of all drivers."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    results: list[Body] = (allocation.get("devices") or {}).get("results") or []
    return results


def usage_of(claims: Iterable[Body]) -> Usage:
    holders: defaultdict[DeviceId, list[str]] = defaultdict(list)
    consumed: defaultdict[DeviceId, list[Mapping[str, int]]] = defaultdict(list)
    for claim in claims:
        for result in results_of(claim):
            if result.get("adminAccess"):
                continue
            device = DeviceId(result["driver"], result["pool"], result["device"])
            holders[device].append(claim_key(claim))
            consumed[device].append(_quantities(result.get("consumedCapacity") or {}))
    return Usage(
        holders={device: tuple(keys) for device, keys in holders.items()},
        consumed={device: tuple(shares) for device, shares in consumed.items()},
    )


def _quantities(texts: Mapping[str, str]) -> dict[str, int]:
    return {name: amount_of(text) for name, text in texts.items()}
