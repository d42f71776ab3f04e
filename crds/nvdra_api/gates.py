"""Feature gates: one table that start-up, admission, the command line and the docs all read.

Names and defaults are those that existing installations set. Combinations that other drivers refuse
are listed too, with what happens to them here, so that nobody has to guess.
"""

from __future__ import annotations

import difflib
import enum
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Stage(enum.StrEnum):
    """Maturity of a gate; `AllAlpha` and `AllBeta` switch a whole stage."""

    ALPHA = "Alpha"
    BETA = "Beta"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNeed:
    """What a gate asks of the cluster: a Kubernetes gate, where it exists, where it is default."""

    gate: str
    available: tuple[int, int]
    default_on: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One switch. `since` is the driver release that brought the name; `needs` and `excludes` name
    other gates and hold only what the design or physics demand."""

    name: str
    default: bool
    stage: Stage
    since: str
    purpose: str
    needs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    cluster: ClusterNeed | None = None


_PARTITIONS = ClusterNeed(gate="DRAPartitionableDevices", available=(1, 34), default_on=(1, 36))
_TAINTS = ClusterNeed(gate="DRADeviceTaints", available=(1, 34), default_on=(1, 36))
_SHARES = ClusterNeed(gate="DRAConsumableCapacity", available=(1, 34), default_on=(1, 36))
_LISTS = ClusterNeed(gate="DRAListTypeAttributes", available=(1, 36), default_on=None)

GATES: Final[tuple[Gate, ...]] = (
    Gate(
        name="TimeSlicingSettings",
        default=False,
        stage=Stage.ALPHA,
        since="0.2",
        purpose="claims may set the time-slice of their GPUs",
    ),
    Gate(
        name="MPSSupport",
        default=False,
        stage=Stage.ALPHA,
        since="0.2",
        purpose="claims may share their GPUs through a CUDA MPS control daemon",
    ),
    Gate(
        name="IMEXDaemonsWithDNSNames",
        default=True,
        stage=Stage.BETA,
        since="0.2",
        purpose="IMEX daemons know each other by stable names instead of addresses",
    ),
    Gate(
        name="PassthroughSupport",
        default=False,
        stage=Stage.ALPHA,
        since="0.3",
        purpose="whole GPUs are offered for passthrough into virtual machines",
    ),
    Gate(
        name="DynamicMIG",
        default=False,
        stage=Stage.ALPHA,
        since="0.3",
        purpose="MIG devices are offered as partitions and created when a claim needs them",
        cluster=_PARTITIONS,
    ),
    Gate(
        name="NVMLDeviceHealthCheck",
        default=False,
        stage=Stage.ALPHA,
        since="0.3",
        purpose="unhealthy devices are tainted",
        cluster=_TAINTS,
    ),
    Gate(
        name="ComputeDomainCliques",
        default=True,
        stage=Stage.BETA,
        since="0.3",
        purpose="members of a ComputeDomain are kept in ComputeDomainClique objects",
    ),
    Gate(
        name="CrashOnNVLinkFabricErrors",
        default=True,
        stage=Stage.BETA,
        since="0.3",
        purpose="a node whose NVLink fabric is in error offers no channels",
    ),
    Gate(
        name="DeviceMetadata",
        default=False,
        stage=Stage.ALPHA,
        since="0.4",
        purpose="containers find files that describe their devices (KEP-5304)",
    ),
    Gate(
        name="DRAListTypeAttributes",
        default=False,
        stage=Stage.ALPHA,
        since="0.4",
        purpose="the NUMA node attribute is a list",
        cluster=_LISTS,
    ),
    Gate(
        name="FabricManagerPartitioning",
        default=False,
        stage=Stage.ALPHA,
        since="0.5",
        purpose="NVSwitch partitions are activated for the GPUs of a claim",
    ),
    Gate(
        name="HostManagedIMEXDaemon",
        default=False,
        stage=Stage.ALPHA,
        since="0.5",
        purpose="IMEX daemons may be run by the host instead of by a ComputeDomain",
    ),
    Gate(
        name="ConsumableShares",
        default=False,
        stage=Stage.ALPHA,
        since="0.5",
        purpose="one device may be allocated to several claims",
        cluster=_SHARES,
    ),
)

# Gates of the Kubernetes logging library. Installations set them, so they are known names.
LOGGING_GATES: Final[tuple[Gate, ...]] = (
    Gate(
        name="ContextualLogging",
        default=True,
        stage=Stage.BETA,
        since="0.2",
        purpose="accepted for compatibility: log lines always carry their context",
    ),
    Gate(
        name="LoggingAlphaOptions",
        default=False,
        stage=Stage.ALPHA,
        since="0.2",
        purpose="accepted for compatibility: has no effect",
    ),
    Gate(
        name="LoggingBetaOptions",
        default=True,
        stage=Stage.BETA,
        since="0.2",
        purpose="accepted for compatibility: has no effect",
    ),
)


class Elsewhere(enum.StrEnum):
    """How the driver that this one replaces treats a combination."""

    REFUSED = "refused"
    ALLOWED = "allowed"
    FAILS_AT_PREPARE = "fails at prepare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Two gates that meet. `on` are both on, or with `off` the first on and `off` switched off."""

    on: tuple[str, ...]
    off: tuple[str, ...] = ()
    elsewhere: Elsewhere
    works: bool
    why: str


COMBINATIONS: Final[tuple[Combination, ...]] = (
    Combination(
        on=("ComputeDomainCliques",),
        off=("IMEXDaemonsWithDNSNames",),
        elsewhere=Elsewhere.REFUSED,
        works=True,
        why="the controller alone writes members, and a clique holds addresses as well as names",
    ),
    Combination(
        on=("DynamicMIG", "PassthroughSupport"),
        elsewhere=Elsewhere.REFUSED,
        works=True,
        why="a GPU, its partitions and its passthrough device draw on one counter set",
    ),
    Combination(
        on=("DynamicMIG", "NVMLDeviceHealthCheck"),
        elsewhere=Elsewhere.REFUSED,
        works=True,
        why="an error of a GPU instance taints the partitions that overlap it",
    ),
    Combination(
        on=("DynamicMIG", "MPSSupport"),
        elsewhere=Elsewhere.REFUSED,
        works=True,
        why="the control daemon starts after the MIG device of its claim exists",
    ),
    Combination(
        on=("PassthroughSupport", "NVMLDeviceHealthCheck"),
        elsewhere=Elsewhere.REFUSED,
        works=True,
        why="a GPU that is bound to vfio is not watched, the others are",
    ),
    Combination(
        on=("DeviceMetadata",),
        off=("PassthroughSupport",),
        elsewhere=Elsewhere.REFUSED,
        works=True,
        why="metadata describe devices of every type",
    ),
    Combination(
        on=("FabricManagerPartitioning", "PassthroughSupport"),
        elsewhere=Elsewhere.ALLOWED,
        works=True,
        why="partitions are activated whatever the GPUs are used for",
    ),
    Combination(
        on=("FabricManagerPartitioning",),
        off=("PassthroughSupport",),
        elsewhere=Elsewhere.ALLOWED,
        works=True,
        why="partitions are activated whatever the GPUs are used for",
    ),
    Combination(
        on=("MPSSupport", "NVMLDeviceHealthCheck"),
        elsewhere=Elsewhere.ALLOWED,
        works=True,
        why="watching events does not disturb a control daemon",
    ),
    Combination(
        on=("ConsumableShares", "MPSSupport"),
        elsewhere=Elsewhere.FAILS_AT_PREPARE,
        works=True,
        why="claims that share a GPU share its control daemon",
    ),
)

_KNOWN: Final = MappingProxyType({gate.name: gate for gate in (*GATES, *LOGGING_GATES)})
_UMBRELLAS: Final = MappingProxyType({"AllAlpha": Stage.ALPHA, "AllBeta": Stage.BETA})
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
    [near] = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.0)
    return f'unknown feature gate "{name[:60]}": did you mean {names[near]}?'


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
