"""How much of a device a request takes: consumable capacity (KEP-5075). 64-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from nvdra_kube.quantity import Quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.scheduler.pools import SliceDevice


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a device cannot give what was asked."""

    reason: str


def amount_of(quantity: object) -> int:
    """A quantity as an integer. Raises ValueError for what is no quantity."""
    return _parsed(str(quantity))


def share_of(device: SliceDevice, *, wanted: Mapping[str, int]) -> dict[str, int] | Misfit:
    """What one allocation takes of each capacity, rounded up as the request policies say.

    A capacity that was not asked for costs its policy's default, or all of it without a policy.
    """
    capacities: Mapping[str, Body] = device.body.get("capacity") or {}
    asked = {_own_name(device, name): amount for name, amount in wanted.items()}
    if missing := [name for name in asked if name not in capacities]:
        return Misfit(f"it has no capacity {missing[0]}")
    share: dict[str, int] = {}
    for name, capacity in capacities.items():
        amount = _consumed(capacity, asked.get(name))
        if amount is None or amount > amount_of(capacity["value"]):
            return Misfit(f"capacity {name} is {capacity['value']}, less than was asked")
        share[name] = amount
    return share


def totals_of(device: SliceDevice) -> dict[str, int]:
    """The device's capacities as integers."""
    capacities: Mapping[str, Body] = device.body.get("capacity") or {}
    return {name: amount_of(capacity["value"]) for name, capacity in capacities.items()}


def as_quantities(device: SliceDevice, share: Mapping[str, int]) -> dict[str, str]:
    """The share as an allocation result writes it: in the form of the device's own numbers."""
    capacities: Mapping[str, Body] = device.body.get("capacity") or {}
    return {
        name: str(_like(str(capacities[name]["value"]), amount)) for name, amount in share.items()
    }


def _like(pattern: str, amount: int) -> Quantity:
    return Quantity.binary(amount) if pattern.endswith("i") else Quantity.decimal(amount)


def _own_name(device: SliceDevice, name: str) -> str:
    """The name as the device wrote it: with its driver's domain, or short."""
    capacities: Mapping[str, Body] = device.body.get("capacity") or {}
    domain, _, short = name.rpartition("/")
    return short if name not in capacities and domain == device.id.driver else name


def _consumed(capacity: Body, asked: int | None) -> int | None:
    policy = capacity.get("requestPolicy")
    if asked is None:
        return amount_of((policy or {}).get("default") or capacity["value"])
    if policy is None:
        return asked
    if values := policy.get("validValues"):
        return min((v for text in values if (v := amount_of(text)) >= asked), default=None)
    if valid_range := policy.get("validRange"):
        return _in_range(valid_range, asked)
    return asked


def _in_range(valid_range: Body, asked: int) -> int | None:
    least = amount_of(valid_range["min"])
    amount = max(asked, least)
    if step := valid_range.get("step"):
        size = amount_of(step)
        amount = least + -(-(amount - least) // size) * size
    most = valid_range.get("max")
    return None if most is not None and amount > amount_of(most) else amount


@lru_cache(maxsize=4096)
def _parsed(text: str) -> int:
    return int(Quantity.parse(text))
