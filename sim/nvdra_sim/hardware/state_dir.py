"""The directory that a simulated machine lives in: laid out once, later checked and opened.

Nothing is ever laid over files that are not the simulator's own, least of all over real devices.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nvdra_sim.hardware import mig, tree
from nvdra_sim.hardware.errors import UnusableStateDir
from nvdra_sim.hardware.layout import Cut, read_layout
from nvdra_sim.hardware.state import LOCK_FILE, GpuState, MachineState, StateFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_sim.hardware.profile import Profile

_KERNEL_DIRS = (Path("/dev"), Path("/proc"), Path("/sys"))
_PLAIN_MEMORY = Path("/dev/shm")


def open_state_dir(
    source: str, profile: Profile, directory: Path, *, node: str, mig_layout: Path | None
) -> StateFile:
    """The state of the machine in `directory`, which is laid out if it is absent or empty.

    `source` is how the profile was named. Processes that open one directory at once wait for each
    other.

    :raises UnusableStateDir: foreign content, real devices, not writable, or another machine.
    :raises BadLayout: the MIG layout does not fit.
    """
    layout, cuts = ("", {}) if mig_layout is None else read_layout(mig_layout, profile)
    wanted = MachineState(source, node, layout, gpus=_cut_gpus(profile, cuts))
    _refuse_foreign(directory)
    file = StateFile(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with file.locked():
            if not file.exists():
                _lay_out(directory, profile, wanted)
                file.write(wanted)
    except OSError as error:
        raise UnusableStateDir(directory, f"{error}; choose a writable directory") from error
    _compare(directory, file.read(), wanted)
    return file


def _refuse_foreign(directory: Path) -> None:
    real = directory.resolve()
    for kernel in _KERNEL_DIRS:
        if real.is_relative_to(kernel) and not real.is_relative_to(_PLAIN_MEMORY):
            problem = f"{kernel} belongs to the kernel and its devices; choose another directory"
            raise UnusableStateDir(directory, problem)
    try:
        entries = [entry.name for entry in directory.iterdir()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnusableStateDir(directory, f"{error}; choose another directory") from error
    if entries and LOCK_FILE not in entries:
        problem = f"it has other content ({sorted(entries)[0]}, ...); choose an empty directory"
        raise UnusableStateDir(directory, problem)


def _cut_gpus(profile: Profile, cuts: Mapping[int, Cut]) -> tuple[GpuState, ...]:
    return tuple(_cut_gpu(profile, cuts.get(index)) for index in range(len(profile.gpus)))


def _cut_gpu(profile: Profile, cut: Cut | None) -> GpuState:
    if cut is None or not cut.mig_enabled or profile.mig is None:
        return GpuState()
    instances = [mig.instance_at(profile.mig, placed) for placed in cut.placed]
    instances.sort(key=lambda each: each.gi_id)
    return GpuState(mig_enabled=True, mig_pending=True, instances=tuple(instances))


def _lay_out(directory: Path, profile: Profile, state: MachineState) -> None:
    tree.machine_tree(profile, node=state.node).lay_out(directory)
    for slot, gpu in zip(profile.gpus, state.gpus, strict=True):
        for each in gpu.instances:
            tree.mig_tree(slot.minor, each.gi_id, each.ci_id).lay_out(directory)


def _compare(directory: Path, found: MachineState, wanted: MachineState) -> None:
    for what, is_, asked in (
        ("profile", found.profile, wanted.profile),
        ("node", found.node, wanted.node),
        ("MIG layout", found.layout, wanted.layout),
    ):
        if asked and is_ != asked:
            problem = f"it holds a machine with {what} {is_ or 'none'!r}, asked for {asked!r}"
            hint = "use the same, another directory, or remove this one to start anew"
            raise UnusableStateDir(directory, f"{problem}; {hint}")
