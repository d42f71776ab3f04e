"""The nvdra API as types: opaque configs, custom resources, feature gates and names. No I/O."""

from nvdra_api.configs import (
    ComputeDomainChannelConfig,
    ComputeDomainDaemonConfig,
    GpuConfig,
    GpuSharing,
    IommuConfig,
    MigDeviceConfig,
    MigDeviceSharing,
    MpsConfig,
    OpaqueConfig,
    TimeSlicingConfig,
    VfioDeviceConfig,
    encode_config,
)
from nvdra_api.decoding import decode_config, decode_object
from nvdra_api.domains import ComputeDomain, ComputeDomainClique
from nvdra_api.errors import ConfigError, Problem
from nvdra_api.gates import GATES, FeatureGates, GateError
from nvdra_api.loading import load_config
from nvdra_api.normalisation import normalise
from nvdra_api.pinned_memory import resolve_pinned_limits
from nvdra_api.validation import validate

__all__ = [
    "GATES",
    "ComputeDomain",
    "ComputeDomainChannelConfig",
    "ComputeDomainClique",
    "ComputeDomainDaemonConfig",
    "ConfigError",
    "FeatureGates",
    "GateError",
    "GpuConfig",
    "GpuSharing",
    "IommuConfig",
    "MigDeviceConfig",
    "MigDeviceSharing",
    "MpsConfig",
    "OpaqueConfig",
    "Problem",
    "TimeSlicingConfig",
    "VfioDeviceConfig",
    "decode_config",
    "decode_object",
    "encode_config",
    "load_config",
    "normalise",
    "resolve_pinned_limits",
    "validate",
]
