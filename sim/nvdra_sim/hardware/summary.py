"""Profiles in brief, for listings."""

from __future__ import annotations

from dataclasses import dataclass

from nvdra_sim.hardware.profile import load_profile


@dataclass(frozen=True, slots=True)
class ProfileSummary:
    """What a person choosing a profile wants to know."""

    name: str
    product: str
    gpus: int
    memory_bytes: int
    compute_capability: str
    machine: str
    driver_version: str
    mig_profiles: tuple[str, ...]
    notes: str


def describe(profile: str) -> ProfileSummary:
    """:raises SimulationError: there is no such profile, or it is invalid."""
    known = load_profile(profile)
    major, minor = known.compute_capability
    return ProfileSummary(
        name=known.name,
        product=known.product,
        gpus=len(known.gpus),
        memory_bytes=known.memory_bytes,
        compute_capability=f"{major}.{minor}",
        machine=known.machine,
        driver_version=known.driver_version,
        mig_profiles=tuple(each.name for each in known.mig.profiles) if known.mig else (),
        notes=known.notes,
    )
