"""Describes devices by the attributes and capacities that selectors are written for.

Nothing volatile belongs here: each change of a value is a write to the API.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from nvdra_api import names
from nvdra_kube.quantity import Quantity
from nvdra_nodeagent.slices.model import SliceDevice, Version

if TYPE_CHECKING:
    from nvdra_nodeagent.inventory.model import Device, Engines, Gpu, MigDevice
    from nvdra_nodeagent.slices.model import AttributeValue

# What the standard attribute promises (KEP-4381): four digits of domain, lower case.
_STANDARD_BUS_ID: Final = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def describe(device: Device, *, list_attributes: bool = False) -> SliceDevice:
    """The device as published. With `list_attributes` the NUMA node is a list of one (KEP-6072)."""
    own = (
        mig_attributes(device.gpu, device.mig)
        if device.mig
        else {names.ATTRIBUTE_TYPE: names.TYPE_GPU, names.ATTRIBUTE_UUID: device.uuid}
    )
    attributes = own | shared_attributes(device.gpu, list_attributes=list_attributes)
    capacity = mig_capacity(device.mig) if device.mig else gpu_capacity(device.gpu)
    return SliceDevice(device.name, attributes, capacity)


def mig_attributes(gpu: Gpu, mig: MigDevice) -> dict[str, AttributeValue]:
    return {
        names.ATTRIBUTE_TYPE: names.TYPE_MIG,
        names.ATTRIBUTE_UUID: mig.uuid,
        names.ATTRIBUTE_PARENT_UUID: gpu.uuid,
        names.ATTRIBUTE_PROFILE: mig.profile,
    }


def shared_attributes(gpu: Gpu, *, list_attributes: bool = False) -> dict[str, AttributeValue]:
    """What a GPU and its partitions have in common. Unknown facts are absent."""
    standard = _STANDARD_BUS_ID.fullmatch(gpu.pci_bus_id)
    numa = gpu.numa_node
    found: dict[str, AttributeValue | None] = {
        names.ATTRIBUTE_PRODUCT_NAME: gpu.product_name,
        names.ATTRIBUTE_BRAND: gpu.brand,
        names.ATTRIBUTE_ARCHITECTURE: gpu.architecture,
        names.ATTRIBUTE_COMPUTE_CAPABILITY: _version(gpu.compute_capability),
        names.ATTRIBUTE_DRIVER_VERSION: _version(gpu.driver_version),
        names.ATTRIBUTE_CUDA_DRIVER_VERSION: _version(gpu.cuda_driver_version),
        names.ATTRIBUTE_ADDRESSING_MODE: gpu.addressing_mode,
        names.ATTRIBUTE_PCI_BUS_ID: gpu.pci_bus_id if standard else None,
        names.ATTRIBUTE_PCIE_ROOT: gpu.pcie_root,
        names.ATTRIBUTE_NUMA_NODE: (numa,) if list_attributes and numa is not None else numa,
    }
    return {name: value for name, value in found.items() if value is not None}


def gpu_capacity(gpu: Gpu) -> dict[str, Quantity]:
    if gpu.memory_bytes is None:
        return {}
    return {names.CAPACITY_MEMORY: Quantity.binary(gpu.memory_bytes)}


def mig_capacity(mig: MigDevice) -> dict[str, Quantity]:
    """Its engines, zeros included, and the memory slices that it covers."""
    covered = range(mig.placement_start, mig.placement_start + mig.placement_size)
    slices = {
        f"{names.CAPACITY_MEMORY_SLICE_PREFIX}{number}": Quantity.decimal(1) for number in covered
    }
    return engine_capacity(mig.engines) | slices


def engine_capacity(engines: Engines) -> dict[str, Quantity]:
    return {
        names.CAPACITY_MULTIPROCESSORS: Quantity.decimal(engines.multiprocessors),
        names.CAPACITY_COPY_ENGINES: Quantity.decimal(engines.copy_engines),
        names.CAPACITY_DECODERS: Quantity.decimal(engines.decoders),
        names.CAPACITY_ENCODERS: Quantity.decimal(engines.encoders),
        names.CAPACITY_JPEG_ENGINES: Quantity.decimal(engines.jpeg_engines),
        names.CAPACITY_OFA_ENGINES: Quantity.decimal(engines.ofa_engines),
        names.CAPACITY_MEMORY: Quantity.binary(engines.memory_bytes),
    }


def _version(text: str) -> Version | None:
    return Version(text) if text else None
