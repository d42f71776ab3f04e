"""What the selectors of an option say about a device, remembered for one allocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_sim.cluster.scheduler.cel import DeviceView, EvaluationError
from nvdra_sim.cluster.scheduler.nodes import untolerated

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.scheduler.demand import Option, Selector
    from nvdra_sim.cluster.scheduler.pools import DeviceId, SliceDevice


@dataclass(frozen=True, slots=True)
class Selected:
    """All selectors are true."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """`selector` is false for the device."""

    selector: Selector


@dataclass(frozen=True, slots=True)
class Failed:
    """`selector` could not be evaluated. The API defines that allocation stops at such a device."""

    selector: Selector
    error: str


@dataclass(frozen=True, slots=True)
class Tainted:
    """The device has a taint that the request does not tolerate."""

    taint: Body


Verdict = Selected | Rejected | Failed | Tainted


class Judge:
    """Evaluates each selector at most once for a device, and a taint after the selectors."""

    def __init__(self) -> None:
        self._views: dict[DeviceId, DeviceView] = {}
        self._verdicts: dict[tuple[int, DeviceId], Verdict] = {}
        self._selections: dict[tuple[str, DeviceId], bool | str] = {}

    def judge(self, option: Option, device: SliceDevice) -> Verdict:
        key = (id(option), device.id)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = self._decide(option, device)
        return verdict

    def _decide(self, option: Option, device: SliceDevice) -> Verdict:
        for selector in option.selectors:
            outcome = self._outcome(selector, device)
            if isinstance(outcome, str):
                return Failed(selector, outcome)
            if not outcome:
                return Rejected(selector)
        kept_off = untolerated(device.body.get("taints") or (), option.tolerations)
        return Tainted(kept_off[0]) if kept_off else Selected()

    def _outcome(self, selector: Selector, device: SliceDevice) -> bool | str:
        """The value, or the text of the error."""
        key = (selector.program.expression, device.id)
        outcome = self._selections.get(key)
        if outcome is None:
            try:
                outcome = selector.program.matches(self._view(device))
            except EvaluationError as error:
                outcome = str(error)
            self._selections[key] = outcome
        return outcome

    def _view(self, device: SliceDevice) -> DeviceView:
        view = self._views.get(device.id)
        if view is None:
            view = self._views[device.id] = DeviceView(device.id.driver, device.body)
        return view
