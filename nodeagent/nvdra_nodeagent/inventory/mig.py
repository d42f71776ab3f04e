"""Finds the MIG devices that exist on a GPU and describes them by their profiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nvdra_nodeagent.hardware.errors import HardwareError
from nvdra_nodeagent.inventory.model import Engines, MigDevice
from nvdra_nodeagent.inventory.profiles import (
    GI_PROFILE_COUNT,
    mig_device_name,
    profile_label,
)

if TYPE_CHECKING:
    from nvdra_nodeagent.hardware.ports import (
        CiInstance,
        GiInstance,
        GiProfile,
        MigHandle,
        NvmlDevice,
    )
    from nvdra_nodeagent.inventory.defects import DefectLog

_MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Parent:
    """What a MIG device's description needs of its GPU."""

    name: str
    minor: int
    memory_bytes: int | None


def survey_mig(device: NvmlDevice, parent: Parent, log: DefectLog) -> tuple[MigDevice, ...]:
    """The MIG devices of a GPU by name. What cannot be described is left out with a defect."""
    handles = log.optional(parent.name, "MIG devices", device.mig_devices)
    if not handles:
        return ()
    profiles = _profiles(device, parent, log)
    found: dict[str, MigDevice] = {}
    for handle in handles:
        mig = _describe(device, parent, handle, profiles, log)
        if mig is None:
            continue
        if mig.name in found:
            log.note(parent.name, mig.name, f"{handle.uuid} has the name of another MIG device")
            continue
        found[mig.name] = mig
    return tuple(found[name] for name in sorted(found))


def _profiles(device: NvmlDevice, parent: Parent, log: DefectLog) -> dict[int, GiProfile]:
    """The GPU instance profiles that this GPU offers, by the id that instances carry."""
    found: dict[int, GiProfile] = {}
    for index in range(GI_PROFILE_COUNT):
        ask = partial(device.gi_profile, index)
        profile = log.optional(parent.name, f"MIG profile {index}", ask)
        if profile is not None:
            found.setdefault(profile.id, profile)
    return found


def _describe(
    device: NvmlDevice,
    parent: Parent,
    handle: MigHandle,
    profiles: dict[int, GiProfile],
    log: DefectLog,
) -> MigDevice | None:
    try:
        gi = device.gpu_instance(handle.gi_id)
        ci = device.compute_instance(handle.gi_id, handle.ci_id)
    except HardwareError as error:
        log.note(parent.name, handle.uuid, error)
        return None
    profile = profiles.get(gi.profile_id)
    obstacle = _obstacle(parent, ci, gi, profile)
    if obstacle or profile is None or parent.memory_bytes is None:
        log.note(parent.name, handle.uuid, obstacle)
        return None
    return _mig_device(parent, handle, gi, profile, gpu_memory_bytes=parent.memory_bytes)


def _obstacle(parent: Parent, ci: CiInstance, gi: GiInstance, profile: GiProfile | None) -> str:
    """Why this MIG device cannot be offered; "" if it can."""
    if profile is None:
        return f"GPU instance {gi.id} has profile id {gi.profile_id}, which the GPU does not list"
    if not parent.memory_bytes:
        return "its profile has no name because the GPU's memory size is not known"
    if ci.slice_count != profile.slice_count:
        return (
            f"compute instance {ci.id} covers {ci.slice_count} of {profile.slice_count} slices "
            f"of GPU instance {gi.id}; only compute instances of a whole GPU instance are offered"
        )
    return ""


def _mig_device(
    parent: Parent, handle: MigHandle, gi: GiInstance, profile: GiProfile, *, gpu_memory_bytes: int
) -> MigDevice:
    label = profile_label(
        profile.index,
        gi_slices=profile.slice_count,
        memory_mb=profile.memory_mb,
        gpu_memory_bytes=gpu_memory_bytes,
    )
    return MigDevice(
        name=mig_device_name(
            parent.minor, profile=label, gi_profile_id=profile.id, start=gi.placement.start
        ),
        uuid=handle.uuid,
        profile=label,
        gi_id=handle.gi_id,
        ci_id=handle.ci_id,
        gi_profile_id=profile.id,
        placement_start=gi.placement.start,
        placement_size=gi.placement.size,
        engines=_engines(profile),
    )


def _engines(profile: GiProfile) -> Engines:
    return Engines(
        multiprocessors=profile.multiprocessors,
        copy_engines=profile.copy_engines,
        decoders=profile.decoders,
        encoders=profile.encoders,
        jpeg_engines=profile.jpeg_engines,
        ofa_engines=profile.ofa_engines,
        memory_bytes=profile.memory_mb * _MIB,
    )
