"""Constraints between the devices of one claim: `matchAttribute` and `distinctAttribute`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING

from nvdra_sim.cluster.scheduler.demand import DemandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.scheduler.pools import SliceDevice


class Constraint(ABC):
    """Follows a search: devices are added while they fit and removed on the way back.

    A device without the attribute never fits.
    """

    def __init__(self, attribute: str, *, requests: Sequence[str]) -> None:
        self._attribute = attribute
        self._requests = frozenset(requests)
        self._values: Counter[str] = Counter()
        self._texts: dict[SliceDevice, str | None] = {}

    def __str__(self) -> str:
        scope = (
            f"requests {', '.join(sorted(self._requests))}" if self._requests else "all requests"
        )
        return f"{self.kind} {self._attribute} over {scope}"

    @property
    @abstractmethod
    def kind(self) -> str: ...

    @abstractmethod
    def _fits(self, value: str) -> bool: ...

    def covers(self, option: str) -> bool:
        """Whether results of `main` or `main/sub` are subject to this constraint."""
        main = option.partition("/")[0]
        return not self._requests or option in self._requests or main in self._requests

    def add(self, option: str, device: SliceDevice) -> bool:
        """Count the device in if it fits. What is not covered fits and is not counted."""
        if not self.covers(option):
            return True
        value = self._value(device)
        if value is None or not self._fits(value):
            return False
        self._values[value] += 1
        return True

    def remove(self, option: str, device: SliceDevice) -> None:
        """Take back a device that `add` accepted."""
        value = self._value(device)
        if value is not None and self.covers(option):
            self._values[value] -= 1
            if not self._values[value]:
                del self._values[value]

    def _value(self, device: SliceDevice) -> str | None:
        """The value and its type as one text; texts are kept, as a search asks often."""
        if device not in self._texts:
            value = device.attribute(self._attribute)
            self._texts[device] = None if value is None else json.dumps(value, sort_keys=True)
        return self._texts[device]


class MatchAttribute(Constraint):
    @property
    def kind(self) -> str:
        return "matchAttribute"

    def _fits(self, value: str) -> bool:
        return not self._values or value in self._values


class DistinctAttribute(Constraint):
    @property
    def kind(self) -> str:
        return "distinctAttribute"

    def _fits(self, value: str) -> bool:
        return value not in self._values


def read_constraints(constraints: Sequence[Body]) -> list[Constraint]:
    """Fresh, empty constraints of a claim. Raises DemandError for a kind that is not known."""
    return [_constraint(body) for body in constraints]


def _constraint(body: Body) -> Constraint:
    requests: Sequence[str] = body.get("requests") or ()
    if name := body.get("matchAttribute"):
        return MatchAttribute(name, requests=requests)
    if name := body.get("distinctAttribute"):
        return DistinctAttribute(name, requests=requests)
    raise DemandError(f"unknown constraint with the fields {', '.join(sorted(body))}")
