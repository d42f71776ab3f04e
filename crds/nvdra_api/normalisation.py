"""What an absent field of a config means: the defaults, filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from nvdra_api.configs import (
    DEFAULT_INTERVAL,
    LEGACY_ONLY,
    MPS,
    STRATEGY_GATES,
    TIME_SLICING,
    GpuConfig,
    GpuSharing,
    IommuConfig,
    MigDeviceConfig,
    MigDeviceSharing,
    MpsConfig,
    OpaqueConfig,
    TimeSlicingConfig,
    VfioDeviceConfig,
)

if TYPE_CHECKING:
    from nvdra_api.gates import FeatureGates

AnySharing = TypeVar("AnySharing", GpuSharing, MigDeviceSharing)


def normalise(config: OpaqueConfig, gates: FeatureGates) -> OpaqueConfig:
    """The config with its defaults. Idempotent; a strategy whose gate is off gets none.

    A time-slicing config without an interval means the interval `Default`, like an absent one.
    """
    match config:
        case GpuConfig(sharing=GpuSharing() as sharing):
            sharing = _with_mps_default(_with_time_slice_default(sharing, gates), gates)
            return msgspec.structs.replace(config, sharing=sharing)
        case MigDeviceConfig(sharing=MigDeviceSharing() as mig_sharing):
            return msgspec.structs.replace(config, sharing=_with_mps_default(mig_sharing, gates))
        case VfioDeviceConfig():
            return msgspec.structs.replace(config, iommu=_with_policy(config.iommu))
        case _:
            return config


def _with_time_slice_default(sharing: GpuSharing, gates: FeatureGates) -> GpuSharing:
    if sharing.strategy != TIME_SLICING or not gates[STRATEGY_GATES[TIME_SLICING]]:
        return sharing
    given = sharing.time_slicing_config or TimeSlicingConfig()
    if given.interval is None:
        given = TimeSlicingConfig(interval=DEFAULT_INTERVAL)
    return msgspec.structs.replace(sharing, time_slicing_config=given)


def _with_mps_default(sharing: AnySharing, gates: FeatureGates) -> AnySharing:
    if sharing.strategy != MPS or not gates[STRATEGY_GATES[MPS]] or sharing.mps_config:
        return sharing
    return msgspec.structs.replace(sharing, mps_config=MpsConfig())


def _with_policy(iommu: IommuConfig | None) -> IommuConfig:
    iommu = iommu or IommuConfig()
    policy = iommu.backend_policy or LEGACY_ONLY
    return msgspec.structs.replace(iommu, backend_policy=policy)
