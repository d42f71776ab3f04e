"""Why claims cannot be satisfied on a node: which device failed at what, in words.

Works on its own after a failed search, so that the search stays simple: every request is looked at
alone, against what other claims hold, and only if each has a chance the combination is to blame.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from nvdra_sim.cluster.scheduler.constraints import read_constraints
from nvdra_sim.cluster.scheduler.ledger import Ledger
from nvdra_sim.cluster.scheduler.verdicts import Failed, Judge, Rejected, Selected, Tainted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.scheduler.demand import ClaimDemand, Option, Selector
    from nvdra_sim.cluster.scheduler.pools import Pool, SliceDevice
    from nvdra_sim.cluster.scheduler.usage import Usage

_NAMES_SHOWN: Final = 8


def explain(
    demands: Sequence[ClaimDemand],
    *,
    node: Body,
    pools: Sequence[Pool],
    usage: Usage,
    judge: Judge,
) -> tuple[str, ...]:
    """Reasons for people; `pools` are those of the node. Never empty."""
    defects = [f"pool {p.driver}/{p.name} is {p.defect}" for p in pools if p.defect]
    if not pools:
        return ("no ResourceSlices from any driver on this node",)
    devices = [device for pool in pools for device in pool.devices_on(node)]
    report = _Report(devices, Ledger(pools, usage=usage), judge, defects)
    alone = [
        reason
        for demand in demands
        for request in demand.requests
        if (reason := report.hopeless(demand.key, request.options))
    ]
    return (*defects, *(alone or _combination(demands)))


def _combination(demands: Sequence[ClaimDemand]) -> list[str]:
    names = [f"{d.key}/{request.name}" for d in demands for request in d.requests]
    rules = [str(c) for d in demands for c in read_constraints(d.constraints)]
    text = f"enough devices fit each request alone, but not all together: {', '.join(names)}"
    return [f"{text}; {'; '.join(rules)}" if rules else text]


class _Obstacle(NamedTuple):
    """What is in the way of some devices: the text before and after their names."""

    before: str
    after: str


_Groups: TypeAlias = "Mapping[_Obstacle, Sequence[str]]"


class _Report:
    """The devices of one node, judged request by request."""

    def __init__(
        self,
        devices: Sequence[SliceDevice],
        ledger: Ledger,
        judge: Judge,
        defects: Sequence[str],
    ) -> None:
        self._devices = devices
        self._ledger = ledger
        self._judge = judge
        self._defects = defects

    def hopeless(self, claim: str, options: Iterable[Option]) -> str:
        """Why not even one option can be satisfied alone; "" if one can."""
        reasons = []
        for option in options:
            reason = self._reason(option)
            if not reason:
                return ""
            reasons.append(f"request {option.name} (class {option.class_name}): {reason}")
        return f"claim {claim}, {'; '.join(reasons)}"

    def _reason(self, option: Option) -> str:
        groups, fitting = self._sort(option)
        shareable = any(device.is_shareable for device in fitting)
        if option.wants_all:
            return self._reason_for_all(option, groups, fitting)
        if len(fitting) >= option.count or shareable:
            return ""
        head = f"{option.count} wanted, {len(fitting)} of {len(self._devices)} devices fit"
        return ": ".join([head, *filter(None, [_listed(groups)])])

    def _reason_for_all(
        self, option: Option, groups: _Groups, fitting: Sequence[SliceDevice]
    ) -> str:
        if self._defects:
            return f"all devices wanted, but {self._defects[0]}"
        selected = [
            device
            for device in self._devices
            if not isinstance(self._judge.judge(option, device), Rejected)
        ]
        if selected and len(selected) == len(fitting):
            return ""
        head = f"all devices wanted, {len(fitting)} of {len(selected)} selected ones are available"
        return f"{head}: {_listed(groups)}" if groups else head

    def _sort(self, option: Option) -> tuple[_Groups, list[SliceDevice]]:
        """Names of devices by what is in their way, and the devices that fit."""
        groups: defaultdict[_Obstacle, list[str]] = defaultdict(list)
        fitting: list[SliceDevice] = []
        for device in self._devices:
            if obstacle := self._obstacle(option, device):
                groups[obstacle].append(device.id.device)
            else:
                fitting.append(device)
        return groups, fitting

    def _obstacle(self, option: Option, device: SliceDevice) -> _Obstacle | None:
        match self._judge.judge(option, device):
            case Rejected(selector):
                text = f"selector `{selector.program.expression}` of {selector.owner}"
                return _Obstacle(f"{text} rejected ", _values(selector, device))
            case Failed(selector, error):
                text = f"selector `{selector.program.expression}` of {selector.owner}"
                return _Obstacle(f"{text} did not select ", f", error: {error}")
            case Tainted(taint):
                return _Obstacle("", f": the taint {_taint(taint)} is not tolerated")
            case Selected():
                obstacle = self._ledger.obstacle(option, device)
                return _Obstacle("", f": {obstacle}") if obstacle else None


def _values(selector: Selector, device: SliceDevice) -> str:
    """What the device has where the selector looks."""
    shown = list(_mentioned(selector, device))
    return f" ({', '.join(shown)})" if shown else ""


def _mentioned(selector: Selector, device: SliceDevice) -> Iterator[str]:
    if "device.driver" in selector.program.expression:
        yield f"driver = {device.id.driver}"
    for name in selector.program.mentioned():
        value = device.attribute(name) or device.capacity(name)
        text = "unset" if value is None else f"= {_text(value)}"
        yield f"{name.removeprefix(device.id.driver + '/')} {text}"


def _text(value: Body) -> str:
    """The bare value; capacities carry a request policy next to it."""
    plain = value.get("value", next(iter(value.values()), None))
    return str(plain).lower() if isinstance(plain, bool) else str(plain)


def _taint(taint: Body) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def _listed(groups: _Groups) -> str:
    return "; ".join(
        f"{obstacle.before}{_names(names)}{obstacle.after}" for obstacle, names in groups.items()
    )


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown
