"""The driver of a simulated machine: its files and its kernel module, which come and go apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nvdra_sim.hardware import tree

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from nvdra_sim.hardware.profile import Profile
    from nvdra_sim.hardware.state import GpuState, MachineState, StateFile


class SimulatedDriver:
    """Unload, replace, load: what a package or a driver container does to a node.

    NVML sessions end when the module is unloaded, and none begins while library and module are of
    different versions.
    """

    def __init__(self, profile: Profile, directory: Path, file: StateFile) -> None:
        self._profile = profile
        self._directory = directory
        self._file = file

    @property
    def version(self) -> str:
        """Of the module that is loaded or was loaded last."""
        return self._file.read().driver.version or self._profile.driver_version

    @property
    def installed(self) -> str:
        """Version of the files; empty while there are none."""
        driver = self._file.read().driver
        return driver.files if driver.files is not None else self._profile.driver_version

    def unload(self) -> None:
        """The kernel module goes; nobody can ask the GPUs anything."""
        self._file.change(_unloaded)

    def load(self, version: str = "") -> None:
        """Load the module of that version, by default that of the files.

        Time slices, compute modes and MIG devices of the time before are gone, and from Hopper on
        the MIG mode too.
        """
        version = version or self.installed or self.version
        before = self._file.read()
        (self._directory / tree.PROC_VERSION).write_text(
            tree.version_text(self._with(version)), encoding="utf-8"
        )
        self._file.change(lambda state: self._loaded(state, version))
        for slot, gpu in zip(self._profile.gpus, before.gpus, strict=True):
            for each in gpu.instances:
                tree.mig_tree(slot.minor, each.gi_id, each.ci_id).clear(self._directory)

    def uninstall(self) -> None:
        """Remove libraries and programs; the module stays as it is."""
        if self.installed:
            self._files(self.installed).clear(self._directory)
        self._note_files("")

    def install(self, version: str, *, only: Collection[str] = ()) -> None:
        """Put the files of a version there, or of its libraries `only` those that begin so: as an
        installation looks that is not finished."""
        files = self._files(version)
        if only:
            kept = _beginning(files.files, only)
            files = tree.Tree(kept, _beginning(files.links, only), files.programs & set(kept))
        files.lay_out(self._directory)
        self._note_files(version)

    def upgrade(self, version: str) -> None:
        """All of it, in the order in which it happens to a node."""
        self.unload()
        self.uninstall()
        self.install(version)
        self.load(version)

    def _files(self, version: str) -> tree.Tree:
        return tree.driver_tree(self._with(version), node=self._file.read().node)

    def _with(self, version: str) -> Profile:
        return msgspec.structs.replace(self._profile, driver_version=version)

    def _note_files(self, version: str) -> None:
        self._file.change(lambda state: _with_files(state, version))

    def _loaded(self, state: MachineState, version: str) -> MachineState:
        driver = msgspec.structs.replace(
            state.driver, loaded=True, version=version, load=state.driver.load + 1
        )
        gpus = tuple(self._fresh(gpu) for gpu in state.gpus)
        return msgspec.structs.replace(state, driver=driver, gpus=gpus)

    def _fresh(self, gpu: GpuState) -> GpuState:
        mig = gpu.mig_pending and self._profile.mig_mode_needs_reset
        return msgspec.structs.replace(
            gpu, mig_enabled=mig, mig_pending=mig, instances=(), time_slice=0, compute_mode=0
        )


def _unloaded(state: MachineState) -> MachineState:
    driver = msgspec.structs.replace(state.driver, loaded=False)
    return msgspec.structs.replace(state, driver=driver)


def _with_files(state: MachineState, version: str) -> MachineState:
    driver = msgspec.structs.replace(state.driver, files=version)
    return msgspec.structs.replace(state, driver=driver)


def _beginning(entries: dict[str, str], names: Collection[str]) -> dict[str, str]:
    return {
        path: text
        for path, text in entries.items()
        if path.rpartition("/")[2].startswith(tuple(names))
    }
