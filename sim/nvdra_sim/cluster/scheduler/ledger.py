"""What is left while a search goes on: devices, shared counters, capacity of shared devices."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nvdra_sim.cluster.scheduler.capacity import Misfit, amount_of, share_of, totals_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from nvdra_sim.cluster.scheduler.demand import Option
    from nvdra_sim.cluster.scheduler.pools import DeviceId, Pool, SliceDevice
    from nvdra_sim.cluster.scheduler.usage import Usage

_CounterKey = tuple[str, str, str, str]
"""Driver, pool, counter set, counter."""


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """One device given to one option of one claim. `share` is set for shared devices only."""

    claim: str
    option: Option
    device: SliceDevice
    share: Mapping[str, int] | None = field(default=None)


class Ledger:
    """Grants on top of what all claims hold already; `give_back` undoes a grant exactly."""

    def __init__(self, pools: Iterable[Pool], *, usage: Usage) -> None:
        self._holders = usage.holders
        self._granted: Counter[DeviceId] = Counter()
        self._claims: set[tuple[str, DeviceId]] = set()
        self._consumed: dict[DeviceId, Counter[str]] = {}
        self._counters_left: dict[_CounterKey, int] = {}
        for device_id, shares in usage.consumed.items():
            self._consumed[device_id] = sum((Counter(share) for share in shares), Counter())
        self._open_counters(pools)

    def _open_counters(self, pools: Iterable[Pool]) -> None:
        for pool in pools:
            for set_name, counters in pool.counter_sets.items():
                for name, value in counters.items():
                    self._counters_left[pool.driver, pool.name, set_name, name] = value
            for device in pool.devices:
                if pool.counter_sets and device.id in self._holders:
                    self._use_counters(device, sign=1)

    def obstacle(self, option: Option, device: SliceDevice) -> str:
        """Why the device cannot be granted as things stand now; "" if it can.

        Admin access needs nothing to be free.
        """
        if option.admin_access:
            return ""
        if device.is_shareable:
            return self._share_obstacle(option, device) or self._counter_obstacle(device)
        if holders := self._holders.get(device.id):
            return f"in use by claim {', '.join(holders)}"
        if self._granted[device.id]:
            return "taken by another request of this pod"
        if option.capacity:
            share = share_of(device, wanted=option.capacity)
            if isinstance(share, Misfit):
                return share.reason
        return self._counter_obstacle(device)

    def grant(self, claim: str, option: Option, device: SliceDevice) -> Grant | None:
        """Take the device if nothing is in the way, also nothing within this claim."""
        if (claim, device.id) in self._claims and not device.is_shareable:
            return None
        if self.obstacle(option, device):
            return None
        if option.admin_access:
            grant = Grant(claim, option, device)
        else:
            grant = self._take(claim, option, device)
        self._claims.add((claim, device.id))
        return grant

    def _take(self, claim: str, option: Option, device: SliceDevice) -> Grant:
        share = share_of(device, wanted=option.capacity) if device.is_shareable else None
        assert not isinstance(share, Misfit)
        first = not self._is_active(device)
        self._granted[device.id] += 1
        if share is not None:
            self._consumed.setdefault(device.id, Counter()).update(share)
        if first:
            self._use_counters(device, sign=1)
        return Grant(claim, option, device, share)

    def give_back(self, grant: Grant) -> None:
        device = grant.device
        self._claims.discard((grant.claim, device.id))
        if grant.option.admin_access:
            return
        self._granted[device.id] -= 1
        if grant.share is not None:
            self._consumed[device.id].subtract(grant.share)
        if not self._is_active(device):
            self._use_counters(device, sign=-1)

    def _is_active(self, device: SliceDevice) -> bool:
        return bool(self._granted[device.id]) or device.id in self._holders

    def _share_obstacle(self, option: Option, device: SliceDevice) -> str:
        share = share_of(device, wanted=option.capacity)
        if isinstance(share, Misfit):
            return share.reason
        consumed = self._consumed.get(device.id, Counter())
        for name, total in totals_of(device).items():
            if consumed[name] + share[name] > total:
                return f"capacity {name}: {total - consumed[name]} left, {share[name]} needed"
        return ""

    def _counter_obstacle(self, device: SliceDevice) -> str:
        if self._is_active(device):
            return ""
        for key, amount in _uses(device):
            if self._counters_left.get(key, 0) < amount:
                left = self._counters_left.get(key, 0)
                return f"counter {key[2]}/{key[3]}: {left} left, {amount} needed"
        return ""

    def _use_counters(self, device: SliceDevice, *, sign: int) -> None:
        for key, amount in _uses(device):
            self._counters_left[key] = self._counters_left.get(key, 0) - sign * amount


def _uses(device: SliceDevice) -> Iterator[tuple[_CounterKey, int]]:
    totals: defaultdict[_CounterKey, int] = defaultdict(int)
    for use in device.body.get("consumesCounters") or []:
        for name, counter in (use.get("counters") or {}).items():
            key = (device.id.driver, device.id.pool, use["counterSet"], name)
            totals[key] += amount_of(counter["value"])
    yield from totals.items()
