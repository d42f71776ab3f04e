"""The feature gates as data: what each one is for, what it needs, and how two of them meet.

Names and defaults are those that existing installations set. Combinations that other drivers refuse
are listed too, with what happens to them here, so that nobody has to guess.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


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
    other gates and hold only what the design or physics demand. A `pending` gate is a known name
    without effect in this version."""

    name: str
    default: bool
    stage: Stage
    since: str
    purpose: str
    needs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    cluster: ClusterNeed | None = None
    pending: bool = False


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
        pending=True,
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
        pending=True,
    ),
    Gate(
        name="DynamicMIG",
        default=False,
        stage=Stage.ALPHA,
        since="0.3",
        purpose="MIG devices are offered as partitions and created when a claim needs them",
        cluster=_PARTITIONS,
        pending=True,
    ),
    Gate(
        name="NVMLDeviceHealthCheck",
        default=False,
        stage=Stage.ALPHA,
        since="0.3",
        purpose="unhealthy devices are tainted",
        cluster=_TAINTS,
        pending=True,
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
        pending=True,
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
        pending=True,
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
