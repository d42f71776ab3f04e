"""Inventories as a healthy machine would give them."""

from __future__ import annotations

from typing import Any

from nvdra_nodeagent.inventory.model import Engines, Gpu, Inventory, MigDevice

GIB = 1024**3
ONE_G_ENGINES = Engines(
    multiprocessors=16,
    copy_engines=1,
    decoders=1,
    encoders=0,
    jpeg_engines=1,
    ofa_engines=0,
    memory_bytes=9856 * 1024**2,
)


def a_gpu(minor: int = 0, **facts: Any) -> Gpu:
    """An H100 in the order of its minor number on the bus."""
    described: dict[str, Any] = {
        "name": f"gpu-{minor}",
        "minor": minor,
        "uuid": f"GPU-00000000-0000-0000-0000-{minor:012d}",
        "product_name": "NVIDIA H100 80GB HBM3",
        "brand": "Nvidia",
        "architecture": "Hopper",
        "compute_capability": "9.0.0",
        "driver_version": "570.158.1",
        "cuda_driver_version": "12.8.0",
        "pci_bus_id": f"0000:{0x10 + minor:02x}:00.0",
        "pcie_root": "pci0000:00",
        "numa_node": 1,
        "addressing_mode": "HMM",
        "memory_bytes": 80 * GIB,
        "mig_capable": True,
    }
    return Gpu(**(described | facts))


def a_mig_device(minor: int = 0, *, start: int = 0, size: int = 1, **facts: Any) -> MigDevice:
    described: dict[str, Any] = {
        "name": f"gpu-{minor}-mig-1g10gb-19-{start}",
        "uuid": f"MIG-{minor}-{start}",
        "profile": "1g.10gb",
        "gi_id": start + 7,
        "ci_id": 0,
        "gi_profile_id": 19,
        "placement_start": start,
        "placement_size": size,
        "engines": ONE_G_ENGINES,
    }
    return MigDevice(**(described | facts))


def a_partitioned_gpu(minor: int = 0, *, devices: int = 7, **facts: Any) -> Gpu:
    cut = tuple(a_mig_device(minor, start=start) for start in range(devices))
    return a_gpu(minor, mig_enabled=True, mig_devices=cut, **facts)


def an_inventory(*gpus: Gpu) -> Inventory:
    return Inventory(gpus=gpus, driver_version="570.158.01")
