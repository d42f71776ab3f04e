"""First fit with backtracking: devices for all requests of all claims of a pod, on one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nvdra_sim.cluster.scheduler.constraints import Constraint, read_constraints
from nvdra_sim.cluster.scheduler.verdicts import Failed, Judge, Rejected, Selected, Tainted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_sim.cluster.scheduler.demand import ClaimDemand, Option, Request
    from nvdra_sim.cluster.scheduler.ledger import Grant, Ledger
    from nvdra_sim.cluster.scheduler.pools import SliceDevice

# A search is exponential in the worst case; the limit plays the part of a scheduler's time-out.
STEP_LIMIT: Final = 50_000


class SelectorFailed(Exception):
    """A selector that cannot be evaluated for a device stops the allocation on this node."""

    def __init__(self, option: Option, device: SliceDevice, failed: Failed) -> None:
        request, owner = f"request {option.name}", failed.selector.owner
        where = request if owner == request else f"{request}, {owner}"
        super().__init__(
            f"device not selected, error: {where}, selector "
            f"`{failed.selector.program.expression}` on {device.id.device}: {failed.error}"
        )


class SearchTooLong(Exception):
    """The search was given up; that says nothing about whether a solution exists."""


@dataclass(frozen=True, slots=True, eq=False)
class _Goal:
    claim: str
    request: Request
    constraints: Sequence[Constraint]


class Search:
    """Depth-first in the order of claims, requests, options and devices: the first fit wins.

    The same inputs always give the same devices. After `run` returned True, `grants` holds one
    entry for each allocated device, in the order of the requests.
    """

    def __init__(
        self,
        demands: Sequence[ClaimDemand],
        *,
        devices: Sequence[SliceDevice],
        all_blocked: str,
        ledger: Ledger,
        judge: Judge,
    ) -> None:
        """`all_blocked` says why `allocationMode: All` is not possible at all; "" if it is."""
        self._devices = devices
        self._all_blocked = all_blocked
        self._ledger = ledger
        self._judge = judge
        self._goals = [
            _Goal(demand.key, request, constraints)
            for demand in demands
            for constraints in [read_constraints(demand.constraints)]
            for request in demand.requests
        ]
        self._worthy: dict[Option, list[SliceDevice]] = {}
        self._steps = 0
        self.grants: list[Grant] = []

    def run(self) -> bool:
        """Raises SelectorFailed, or SearchTooLong after STEP_LIMIT attempts."""
        return self._reach(0)

    def _reach(self, index: int) -> bool:
        if index == len(self._goals):
            return True
        return any(self._try(index, option) for option in self._goals[index].request.options)

    def _try(self, index: int, option: Option) -> bool:
        if option.wants_all:
            return self._take_all(index, option)
        candidates = self._candidates(option)
        if len(candidates) < option.count and not _any_shareable(candidates):
            self._fail_on_error(option, candidates)
            return False
        return self._take_some(index, option, candidates, start=0, missing=option.count)

    def _candidates(self, option: Option) -> list[SliceDevice]:
        """Devices worth trying now, those that the search has to stop at included."""
        worthy = self._worthy.get(option)
        if worthy is None:
            worthy = self._worthy[option] = [
                device
                for device in self._devices
                if isinstance(self._judge.judge(option, device), Selected | Failed)
            ]
        return [device for device in worthy if not self._ledger.obstacle(option, device)]

    def _fail_on_error(self, option: Option, devices: Sequence[SliceDevice]) -> None:
        for device in devices:
            verdict = self._judge.judge(option, device)
            if isinstance(verdict, Failed):
                raise SelectorFailed(option, device, verdict)

    def _take_some(
        self,
        index: int,
        option: Option,
        candidates: Sequence[SliceDevice],
        *,
        start: int,
        missing: int,
    ) -> bool:
        """Combinations, not permutations: devices within one request are equal."""
        if missing == 0:
            return self._reach(index + 1)
        for position in range(start, len(candidates)):
            device = candidates[position]
            self._fail_on_error(option, [device])
            if not self._take(index, option, device):
                continue
            following = position if device.is_shareable else position + 1
            if self._take_some(index, option, candidates, start=following, missing=missing - 1):
                return True
            self._untake(index)
        return False

    def _take_all(self, index: int, option: Option) -> bool:
        if self._all_blocked:
            return False
        self._fail_on_error(option, self._devices)
        wanted = [
            device
            for device in self._devices
            if not isinstance(self._judge.judge(option, device), Rejected)
        ]
        taken = 0
        for device in wanted:
            if isinstance(self._judge.judge(option, device), Tainted):
                break
            if not self._take(index, option, device):
                break
            taken += 1
        if wanted and taken == len(wanted) and self._reach(index + 1):
            return True
        for _ in range(taken):
            self._untake(index)
        return False

    def _take(self, index: int, option: Option, device: SliceDevice) -> bool:
        self._steps += 1
        if self._steps > STEP_LIMIT:
            raise SearchTooLong(f"no solution found in {STEP_LIMIT} attempts, gave up")
        goal = self._goals[index]
        grant = self._ledger.grant(goal.claim, option, device)
        if grant is None:
            return False
        for position, constraint in enumerate(goal.constraints):
            if not constraint.add(option.name, device):
                for accepted in goal.constraints[:position]:
                    accepted.remove(option.name, device)
                self._ledger.give_back(grant)
                return False
        self.grants.append(grant)
        return True

    def _untake(self, index: int) -> None:
        grant = self.grants.pop()
        for constraint in self._goals[index].constraints:
            constraint.remove(grant.option.name, grant.device)
        self._ledger.give_back(grant)


def _any_shareable(devices: Sequence[SliceDevice]) -> bool:
    return any(device.is_shareable for device in devices)
