"""Whether a hardware profile's numbers fit together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nvdra_sim.hardware.profile import MigProfile, MigTable, Profile

_MAX_VARIANTS = 8  # compute instance numbers that the driver's capability numbering has room for


def profile_problems(profile: Profile) -> list[str]:
    """Everything that cannot be true of one machine, in words."""
    problems = [*_gpu_problems(profile)]
    if profile.mig is not None:
        problems += _table_problems(profile.mig, memory_mib=profile.memory_mib)
    return problems


def mig_label(memory_mib: int, *, of_mib: int) -> int:
    """Gigabytes in a MIG profile's name: whole eighths of the GPU's memory, rounded half up."""
    eighths = math.ceil(8 * memory_mib / of_mib)
    return math.floor(eighths / 8 * math.ceil(of_mib / 1024) + 0.5)


def _gpu_problems(profile: Profile) -> Iterator[str]:
    for attribute in ("bus_id", "minor"):
        if len({getattr(gpu, attribute) for gpu in profile.gpus}) < len(profile.gpus):
            yield f"two GPUs have the same {attribute}"
    if list(profile.gpus) != sorted(profile.gpus, key=lambda gpu: gpu.bus_id):
        yield "GPUs are not in PCI order"


def _table_problems(table: MigTable, *, memory_mib: int) -> Iterator[str]:
    for attribute in ("name", "index", "id"):
        if len({getattr(profile, attribute) for profile in table.profiles}) < len(table.profiles):
            yield f"two MIG profiles have the same {attribute}"
    if not any(profile.size == table.memory_slices for profile in table.profiles):
        yield "no MIG profile covers the whole GPU"
    for profile in table.profiles:
        if len(table.variants(profile.size)) > _MAX_VARIANTS:
            yield f"more than {_MAX_VARIANTS} MIG profiles of size {profile.size}"
        for problem in _mig_problems(profile, table, memory_mib=memory_mib):
            yield f"MIG profile {profile.name}: {problem}"


def _mig_problems(profile: MigProfile, table: MigTable, *, memory_mib: int) -> Iterator[str]:
    if table.memory_slices % profile.size or profile.size & (profile.size - 1):
        yield f"size {profile.size} does not halve {table.memory_slices} memory slices"
    if profile.slices > table.compute_slices or not profile.name.startswith(f"{profile.slices}g."):
        yield f"{profile.slices} compute slices do not fit its name or the GPU"
    label = mig_label(profile.memory_mib, of_mib=memory_mib)
    if f".{label}gb" not in profile.name:
        yield f"{profile.memory_mib} MiB of {memory_mib} MiB are called {label}gb"
    for start in profile.starts:
        if start % profile.size or start + profile.size > table.memory_slices:
            yield f"cannot start at memory slice {start}"
    if not 1 <= profile.instances <= len(profile.starts):
        yield f"{profile.instances} instances for {len(profile.starts)} placements"
