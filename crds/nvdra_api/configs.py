"""The opaque configs that a claim or a device class may carry for our drivers.

Only shapes: what a field may hold is said in `validation`, what an absent one means in
`normalisation`. Fields hold what the user wrote, so that nothing is lost before it is judged.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from nvdra_api.names import API_VERSION

QUANTITY_MARK: Final = "x-kubernetes-int-or-string"
Quantity = Annotated[str, msgspec.Meta(extra_json_schema={QUANTITY_MARK: True})]
"""A Kubernetes quantity as written (`10Gi`); `nvdra_api.quantity.parse_quantity` reads it."""

TIME_SLICING: Final = "TimeSlicing"
MPS: Final = "MPS"
STRATEGIES: Final = (TIME_SLICING, MPS)
STRATEGY_GATES: Final = {TIME_SLICING: "TimeSlicingSettings", MPS: "MPSSupport"}

DEFAULT_INTERVAL: Final = "Default"
INTERVALS: Final = {DEFAULT_INTERVAL: 0, "Short": 1, "Medium": 2, "Long": 3}
"""Time-slice lengths and their numbers in the compute policy of the driver."""

LEGACY_ONLY: Final = "LegacyOnly"
PREFER_IOMMUFD: Final = "PreferIommuFD"
BACKEND_POLICIES: Final = (LEGACY_ONLY, PREFER_IOMMUFD)


class _Value(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """An object inside a config. Absent optional fields are None."""


class TimeSlicingConfig(_Value, frozen=True):
    """How long a process may keep a time-sliced GPU."""

    interval: str | None = None


class MpsConfig(_Value, frozen=True):
    """Limits that an MPS control daemon sets for its clients.

    Keys of `default_per_device_pinned_memory_limit` are device UUIDs, or positions in the sorted
    list of the UUIDs that share the daemon; see `nvdra_api.pinned_memory`.
    """

    default_active_thread_percentage: int | None = None
    default_pinned_device_memory_limit: Quantity | None = None
    default_per_device_pinned_memory_limit: dict[str, Quantity] = {}
    multi_user: bool = False


class GpuSharing(_Value, frozen=True):
    """How the processes of a claim share a whole GPU."""

    strategy: str = ""
    time_slicing_config: TimeSlicingConfig | None = None
    mps_config: MpsConfig | None = None


class MigDeviceSharing(_Value, frozen=True):
    """How the processes of a claim share a MIG device. Time slices of MIG devices are fixed."""

    strategy: str = ""
    mps_config: MpsConfig | None = None


class IommuConfig(_Value, frozen=True):
    """How a passthrough device reaches the virtual machine monitor."""

    backend_policy: str = ""
    enable_api_device: bool = msgspec.field(default=False, name="enableAPIDevice")


class GpuConfig(_Value, frozen=True, tag_field="kind", tag="GpuConfig"):
    """Config of whole GPUs. Without `sharing` the GPU is used exclusively, nothing is set."""

    sharing: GpuSharing | None = None


class MigDeviceConfig(_Value, frozen=True, tag_field="kind", tag="MigDeviceConfig"):
    """Config of MIG devices."""

    sharing: MigDeviceSharing | None = None


class VfioDeviceConfig(_Value, frozen=True, tag_field="kind", tag="VfioDeviceConfig"):
    """Config of GPUs that are passed through into virtual machines."""

    iommu: IommuConfig | None = None


class ComputeDomainChannelConfig(
    _Value, frozen=True, tag_field="kind", tag="ComputeDomainChannelConfig"
):
    """Ties an IMEX channel to the ComputeDomain with this UID. `allocation_mode`: Single or All."""

    domain_id: str = msgspec.field(default="", name="domainID")
    allocation_mode: str = ""


class ComputeDomainDaemonConfig(
    _Value, frozen=True, tag_field="kind", tag="ComputeDomainDaemonConfig"
):
    """Ties an IMEX daemon to the ComputeDomain with this UID."""

    domain_id: str = msgspec.field(default="", name="domainID")


OpaqueConfig = (
    GpuConfig
    | MigDeviceConfig
    | VfioDeviceConfig
    | ComputeDomainChannelConfig
    | ComputeDomainDaemonConfig
)

CONFIG_TYPES: Final[dict[str, type[OpaqueConfig]]] = {
    "GpuConfig": GpuConfig,
    "MigDeviceConfig": MigDeviceConfig,
    "VfioDeviceConfig": VfioDeviceConfig,
    "ComputeDomainChannelConfig": ComputeDomainChannelConfig,
    "ComputeDomainDaemonConfig": ComputeDomainDaemonConfig,
}
"""The kinds that opaque parameters may have."""


def encode_config(config: OpaqueConfig) -> dict[str, Any]:
    """The config as a JSON object with kind and apiVersion, as claims carry it."""
    return {"apiVersion": API_VERSION, **msgspec.to_builtins(config)}
