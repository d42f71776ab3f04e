"""What keeps slices from being published as they were meant."""

from __future__ import annotations

from typing import Final

from nvdra_nodeagent.errors import AgentError, Retryable

# Which switched-off feature of the cluster makes a server drop which field.
_GATES: Final = {
    "taints": "DRADeviceTaints",
    "sharedCounters": "DRAPartitionableDevices",
    "consumesCounters": "DRAPartitionableDevices",
    "bindingConditions": "DRADeviceBindingConditions",
    "bindingFailureConditions": "DRADeviceBindingConditions",
    "allowMultipleAllocations": "DRAConsumableCapacity",
    "requestPolicy": "DRAConsumableCapacity",
    "ints": "DRAListTypeAttributes",
}
_SHOWN: Final = 5


class PublishFailed(Retryable):
    """The API server refused or did not answer; the publisher tries again by itself."""

    def __init__(self, pool: str, *, cause: Exception) -> None:
        super().__init__(
            "ResourceSlicePublishFailed",
            f"cannot publish the ResourceSlices of pool {pool}: {cause}",
            hint="the write is repeated; until then schedulers see the devices as last published",
        )


class SlicesRefused(AgentError):
    """The server finds the slices invalid: the same contents will never be taken."""

    def __init__(self, pool: str, *, cause: Exception) -> None:
        super().__init__(
            "ResourceSlicesRefused",
            f"the API server refuses the ResourceSlices of pool {pool}: {cause}",
            hint="a feature gate that is on here may be off in the cluster",
        )


class SlicesNotServed(Retryable):
    """No version of resource.k8s.io that we speak is served."""

    def __init__(self, versions: tuple[str, ...]) -> None:
        super().__init__(
            "ResourceSlicesNotServed",
            f"the API server serves ResourceSlices in none of {', '.join(versions)}",
            hint="enable the resource.k8s.io API group and the DynamicResourceAllocation feature",
        )


class FieldsDropped(AgentError):
    """The server stored less than it was sent; `fields` are JSON paths within the specs.

    It does so silently for fields of features that are switched off in the cluster.
    """

    def __init__(self, pool: str, *, fields: tuple[str, ...]) -> None:
        shown = ", ".join(fields[:_SHOWN]) + (", ..." if len(fields) > _SHOWN else "")
        gates = sorted({gate for name, gate in _GATES.items() if _mentions(fields, name)})
        hint = (
            f"enable {' and '.join(gates)} in the cluster or switch the feature off here"
            if gates
            else "the cluster may be older than this agent"
        )
        super().__init__(
            "ResourceSliceFieldsDropped",
            f"the API server dropped fields of ResourceSlices of pool {pool}: {shown}",
            hint=hint,
        )
        self.fields = fields

    def mentions(self, name: str) -> bool:
        """Whether a field of this name, or something in it, was dropped."""
        return _mentions(self.fields, name)


def _mentions(fields: tuple[str, ...], name: str) -> bool:
    return any(name in field.replace("[", ".").split(".") for field in fields)
