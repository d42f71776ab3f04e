"""What a config may say. One set of rules for admission and for the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_api.configs import (
    BACKEND_POLICIES,
    INTERVALS,
    MPS,
    STRATEGIES,
    STRATEGY_GATES,
    TIME_SLICING,
    ComputeDomainChannelConfig,
    ComputeDomainDaemonConfig,
    GpuConfig,
    GpuSharing,
    MigDeviceConfig,
    MigDeviceSharing,
    OpaqueConfig,
    TimeSlicingConfig,
    VfioDeviceConfig,
)
from nvdra_api.errors import Problem
from nvdra_api.pinned_memory import judge_pinned_limits
from nvdra_api.quantity import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nvdra_api.gates import FeatureGates

_PERCENTAGE_PATH = "sharing.mpsConfig.defaultActiveThreadPercentage"


def validate(config: OpaqueConfig, gates: FeatureGates) -> list[Problem]:
    """Everything that is wrong with a normalised config, in the order of its fields."""
    match config:
        case GpuConfig(sharing=GpuSharing() as sharing):
            strategy = _judge_strategy(sharing.strategy, gates)
            return strategy + _judge_time_slicing(sharing) + _judge_mps(sharing)
        case MigDeviceConfig(sharing=MigDeviceSharing() as mig_sharing):
            return _judge_strategy(mig_sharing.strategy, gates) + _judge_mps(mig_sharing)
        case VfioDeviceConfig(iommu=iommu) if iommu and iommu.backend_policy:
            return _judge_policy(iommu.backend_policy)
        case ComputeDomainChannelConfig() | ComputeDomainDaemonConfig():
            return _judge_domain(config.domain_id)
        case _:
            return []


def _judge_strategy(strategy: str, gates: FeatureGates) -> list[Problem]:
    path = "sharing.strategy"
    if strategy not in STRATEGIES:
        what = f"unknown sharing strategy {shown(strategy)}" if strategy else "is missing"
        return [Problem(path, f"{what}; {_supported(STRATEGIES)}")]
    gate = STRATEGY_GATES[strategy]
    if not gates[gate]:
        return [Problem(path, f'strategy "{strategy}" needs the feature gate "{gate}" to be on')]
    return []


def _judge_time_slicing(sharing: GpuSharing) -> list[Problem]:
    config = sharing.time_slicing_config
    if config is None:
        return []
    problems = _contradiction(sharing.strategy, TIME_SLICING, "sharing.timeSlicingConfig")
    return problems + _judge_interval(config)


def _judge_interval(config: TimeSlicingConfig) -> list[Problem]:
    if config.interval is None or config.interval in INTERVALS:
        return []
    text = f"unknown time-slice interval {shown(config.interval)}; {_supported(INTERVALS)}"
    return [Problem("sharing.timeSlicingConfig.interval", text)]


def _judge_mps(sharing: GpuSharing | MigDeviceSharing) -> list[Problem]:
    mps = sharing.mps_config
    if mps is None:
        return []
    problems = _contradiction(sharing.strategy, MPS, "sharing.mpsConfig")
    percentage = mps.default_active_thread_percentage
    if percentage is not None and percentage < 0:
        text = f"active thread percentage must not be negative, got {percentage}"
        problems.append(Problem(_PERCENTAGE_PATH, text))
    if percentage is not None and percentage > 100:
        text = f"active thread percentage must not be greater than 100, got {percentage}"
        problems.append(Problem(_PERCENTAGE_PATH, text))
    return problems + judge_pinned_limits(mps, "sharing.mpsConfig")


def _contradiction(strategy: str, belongs_to: str, path: str) -> list[Problem]:
    if strategy not in STRATEGIES or strategy == belongs_to:
        return []
    text = f"contradicts strategy {strategy}; remove it or set sharing.strategy to {belongs_to}"
    return [Problem(path, text)]


def _judge_policy(policy: str) -> list[Problem]:
    if policy in BACKEND_POLICIES:
        return []
    text = f"unknown IOMMU backend policy {shown(policy)}; {_supported(BACKEND_POLICIES)}"
    return [Problem("iommu.backendPolicy", text)]


def _judge_domain(domain_id: str) -> list[Problem]:
    if domain_id:
        return []
    return [Problem("domainID", "is missing; write the UID of a ComputeDomain")]


def _supported(values: Iterable[str]) -> str:
    return f"supported: {', '.join(values)}"
