"""Which MIG instances a GPU has room for, and where they go. Pure.

Memory slices may not overlap, compute slices and engines may not exceed the GPU's, and a profile
has an upper number of instances (NVIDIA MIG user guide, "Supported MIG profiles").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_sim.hardware.profile import MigProfile, MigTable

_ENGINES = (
    "multiprocessors",
    "copy_engines",
    "decoders",
    "encoders",
    "jpeg_engines",
    "ofa_engines",
)


@dataclass(frozen=True, slots=True)
class Placed:
    """An instance of `profile` on the memory slices from `start`."""

    profile: MigProfile
    start: int

    def overlaps(self, other: Placed) -> bool:
        return (
            self.start < other.start + other.profile.size
            and other.start < self.start + self.profile.size
        )


def free_starts(table: MigTable, placed: Sequence[Placed], profile: MigProfile) -> tuple[int, ...]:
    """Where one more instance of `profile` can start beside those that are there."""
    if not _resources_suffice(table, [*(each.profile for each in placed), profile]):
        return ()
    return tuple(start for start in profile.starts if _is_free(placed, Placed(profile, start)))


def choose_start(table: MigTable, placed: Sequence[Placed], profile: MigProfile) -> int | None:
    """Where the driver puts it: the place that takes the fewest choices from later instances."""
    return next(iter(_by_preference(table, placed, profile)), None)


def fit(table: MigTable, wanted: Sequence[MigProfile]) -> tuple[Placed, ...] | None:
    """All of `wanted` on an empty GPU, large ones first; None if they do not fit in any way."""
    if not _resources_suffice(table, wanted):
        return None
    order = sorted(wanted, key=lambda profile: (-profile.size, -profile.slices, profile.index))
    return _fit(table, (), order, dead_ends=set())


def _fit(
    table: MigTable,
    placed: tuple[Placed, ...],
    wanted: Sequence[MigProfile],
    *,
    dead_ends: set[frozenset[Placed]],
) -> tuple[Placed, ...] | None:
    if not wanted:
        return placed
    # The same set of instances is reached in many orders; it fails once for all.
    if (reached := frozenset(placed)) in dead_ends:
        return None
    for start in _by_preference(table, placed, wanted[0]):
        here = (*placed, Placed(wanted[0], start))
        if (found := _fit(table, here, wanted[1:], dead_ends=dead_ends)) is not None:
            return found
    dead_ends.add(reached)
    return None


def _by_preference(table: MigTable, placed: Sequence[Placed], profile: MigProfile) -> list[int]:
    def lost_choices(start: int) -> int:
        candidate = Placed(profile, start)
        return sum(candidate.overlaps(open_place) for open_place in open_places)

    open_places = [
        Placed(other, start)
        for other in table.profiles
        for start in other.starts
        if _is_free(placed, Placed(other, start))
    ]
    starts = free_starts(table, placed, profile)
    return sorted(starts, key=lambda start: (lost_choices(start), start))


def _is_free(placed: Sequence[Placed], candidate: Placed) -> bool:
    return not any(candidate.overlaps(each) for each in placed)


def _resources_suffice(table: MigTable, profiles: Sequence[MigProfile]) -> bool:
    if sum(profile.slices for profile in profiles) > table.compute_slices:
        return False
    if any(profiles.count(profile) > profile.instances for profile in profiles):
        return False
    return all(
        sum(getattr(profile, engine) for profile in profiles)
        <= max(getattr(profile, engine) for profile in table.profiles)
        for engine in _ENGINES
    )
