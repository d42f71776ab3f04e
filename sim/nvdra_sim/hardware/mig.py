"""Changes of MIG mode and instances, as pure steps from state to state.

They answer as the driver does: not supported while the mode is off, insufficient resources where
slices, engines or instances run out, in use while instances live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nvdra_sim.hardware import identity, placement
from nvdra_sim.hardware.calls import (
    IN_USE,
    INSUFFICIENT_RESOURCES,
    INVALID_ARGUMENT,
    NOT_FOUND,
    NOT_SUPPORTED,
    nvml_error,
)
from nvdra_sim.hardware.placement import Placed
from nvdra_sim.hardware.state import MachineState, MigInstance

if TYPE_CHECKING:
    from nvdra_sim.hardware.profile import MigProfile, MigTable, Profile
    from nvdra_sim.hardware.state import GpuState

_CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"
_DESTROY = "nvmlGpuInstanceDestroy"
_SET_MODE = "nvmlDeviceSetMigMode"


def instance_at(table: MigTable, placed: Placed) -> MigInstance:
    size = placed.profile.size
    return MigInstance(
        gi_id=identity.gi_id(table, start=placed.start, size=size),
        ci_id=identity.ci_id(table, placed.profile),
        profile_id=placed.profile.id,
        start=placed.start,
        size=size,
    )


def created(
    gpu: GpuState, table: MigTable, profile: MigProfile, *, start: int | None
) -> tuple[GpuState, MigInstance]:
    """With one more instance, where `start` says or else where the driver would put it."""
    if not gpu.mig_enabled:
        raise nvml_error(_CREATE, NOT_SUPPORTED)
    if start is not None and start not in profile.starts:
        raise nvml_error(_CREATE, INVALID_ARGUMENT)
    placed = [Placed(table.with_id(each.profile_id), each.start) for each in gpu.instances]
    if start is None:
        start = placement.choose_start(table, placed, profile)
    elif start not in placement.free_starts(table, placed, profile):
        start = None
    if start is None:
        raise nvml_error(_CREATE, INSUFFICIENT_RESOURCES)
    instance = instance_at(table, Placed(profile, start))
    instances = sorted((*gpu.instances, instance), key=lambda each: each.gi_id)
    return msgspec.structs.replace(gpu, instances=tuple(instances)), instance


def destroyed(gpu: GpuState, gi_id: int) -> tuple[GpuState, MigInstance]:
    """Without the instance of that id."""
    for instance in gpu.instances:
        if instance.gi_id == gi_id:
            left = tuple(each for each in gpu.instances if each is not instance)
            return msgspec.structs.replace(gpu, instances=left), instance
    raise nvml_error(_DESTROY, NOT_FOUND)


def mode_set(gpu: GpuState, profile: Profile, *, enabled: bool) -> GpuState:
    """In the asked mode, or before Hopper waiting for a reset to enter it."""
    if profile.mig is None:
        raise nvml_error(_SET_MODE, NOT_SUPPORTED)
    if gpu.instances and not enabled:
        raise nvml_error(_SET_MODE, IN_USE)
    current = gpu.mig_enabled if profile.mig_mode_needs_reset else enabled
    return msgspec.structs.replace(gpu, mig_enabled=current, mig_pending=enabled)


def with_gpu(state: MachineState, index: int, gpu: GpuState) -> MachineState:
    gpus = (*state.gpus[:index], gpu, *state.gpus[index + 1 :])
    return msgspec.structs.replace(state, gpus=gpus)
