"""Which feature gates are on: one reading of the gate table for every program.

Start-up, admission and the command line all decide by it; the table itself is data.
"""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from nvdra_api.gate_table import (
    COMBINATIONS,
    GATES,
    LOGGING_GATES,
    ClusterNeed,
    Combination,
    Elsewhere,
    Gate,
    Stage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "COMBINATIONS",
    "GATES",
    "LOGGING_GATES",
    "ClusterNeed",
    "Combination",
    "Elsewhere",
    "FeatureGates",
    "Gate",
    "GateError",
    "Stage",
]

_KNOWN: Final = MappingProxyType({gate.name: gate for gate in (*GATES, *LOGGING_GATES)})
_UMBRELLAS: Final = MappingProxyType({"AllAlpha": Stage.ALPHA, "AllBeta": Stage.BETA})
_ALIKE: Final = 0.4  # enough for `MPS` to mean `MPSSupport`
# The spellings that the flag's users know from other Kubernetes programs.
_BOOLEANS: Final = MappingProxyType(
    dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True)
    | dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False)
)


class GateError(ValueError):
    """Feature gates that cannot be used; `problems` names every one of them."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("invalid feature gates: " + "; ".join(problems))
        self.problems = problems


class FeatureGates:
    """Which gates are on. Immutable; asking for a name that does not exist is a KeyError."""

    __slots__ = ("_enabled",)

    def __init__(self, settings: Mapping[str, bool] | None = None) -> None:
        """Defaults, then the umbrella gates, then what is named explicitly.

        :raises GateError: unknown names, or a combination that cannot work.
        """
        settings = settings or {}
        problems = [_unknown(name) for name in settings if not _is_known(name)]
        enabled = _resolve(settings)
        problems += _conflicts(enabled)
        if problems:
            raise GateError(tuple(problems))
        self._enabled = MappingProxyType(enabled)

    @classmethod
    def parse(cls, text: str) -> FeatureGates:
        """Read the form of the `--feature-gates` flag: `A=true,B=false,`.

        Blanks and empty entries are ignored (charts emit a comma after the last entry).

        :raises GateError: with every problem of the text.
        """
        settings: dict[str, bool] = {}
        problems: list[str] = []
        for entry in filter(None, (entry.strip() for entry in text.split(","))):
            name, equals, value = (part.strip() for part in entry.partition("="))
            if not _is_known(name):
                problems.append(_unknown(name))
            elif not equals:
                problems.append(f"{name} has no value: write {name}=true or {name}=false")
            elif value not in _BOOLEANS:
                problems.append(f"{name}={value}: the value has to be true or false")
            else:
                settings[name] = _BOOLEANS[value]
        if problems:
            raise GateError(tuple(problems))
        return cls(settings)

    def __getitem__(self, name: str) -> bool:
        return self._enabled[name]

    def enabled(self, name: str) -> bool:
        """Whether the gate is on."""
        return self._enabled[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._enabled)

    def __len__(self) -> int:
        return len(self._enabled)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FeatureGates):
            return NotImplemented
        return self._enabled == other._enabled

    def __hash__(self) -> int:
        return hash(tuple(self._enabled.items()))

    def __str__(self) -> str:
        """Every gate with its value, in the form that `parse` reads."""
        return ",".join(f"{name}={str(on).lower()}" for name, on in self._enabled.items())

    def __repr__(self) -> str:
        return f"FeatureGates.parse({str(self)!r})"

    def without_effect(self) -> tuple[str, ...]:
        """Gates that somebody switched on and that do nothing in this version."""
        return tuple(
            gate.name for gate in GATES if gate.pending and self[gate.name] and not gate.default
        )

    def cluster_warnings(self, server: tuple[int, int]) -> tuple[str, ...]:
        """What the cluster at this (major, minor) lacks for gates that are on, a line for each.

        Warnings, not errors: a cluster's own gates cannot be seen from its version.
        """
        return tuple(
            _cluster_warning(gate.name, gate.cluster, server)
            for gate in GATES
            if gate.cluster and self[gate.name] and _is_uncertain(gate.cluster, server)
        )


def _is_known(name: str) -> bool:
    return name in _KNOWN or name in _UMBRELLAS


def _unknown(name: str) -> str:
    names = {known.lower(): known for known in (*_KNOWN, *_UMBRELLAS)}
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=_ALIKE)
    advice = f"did you mean {names[near[0]]}?" if near else f"known: {', '.join(_KNOWN)}"
    return f'unknown feature gate "{name[:60]}": {advice}'


def _resolve(settings: Mapping[str, bool]) -> dict[str, bool]:
    enabled = {gate.name: gate.default for gate in _KNOWN.values()}
    for umbrella, stage in _UMBRELLAS.items():
        if umbrella in settings:
            members = (gate.name for gate in _KNOWN.values() if gate.stage is stage)
            enabled.update(dict.fromkeys(members, settings[umbrella]))
    enabled.update({name: on for name, on in settings.items() if name in _KNOWN})
    return enabled


def _conflicts(enabled: Mapping[str, bool]) -> list[str]:
    problems = []
    for gate in GATES:
        if not enabled[gate.name]:
            continue
        problems += [f"{gate.name} needs {need}" for need in gate.needs if not enabled[need]]
        problems += [f"{gate.name} excludes {other}" for other in gate.excludes if enabled[other]]
    return problems


def _is_uncertain(need: ClusterNeed, server: tuple[int, int]) -> bool:
    return need.default_on is None or server < need.default_on


def _cluster_warning(gate: str, need: ClusterNeed, server: tuple[int, int]) -> str:
    version = f"{server[0]}.{server[1]}"
    if server < need.available:
        needed = f"{need.available[0]}.{need.available[1]}"
        return f"{gate} needs Kubernetes {needed} or newer, this cluster is {version}"
    return (
        f"{gate} needs the Kubernetes feature gate {need.gate}, "
        f"which is not on by default in {version}"
    )
