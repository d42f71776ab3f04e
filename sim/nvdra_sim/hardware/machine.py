"""One simulated machine: its ports, and the handles by which a test or a person changes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from nvdra_nodeagent.hardware.cdi_hook import HostHook
from nvdra_nodeagent.hardware.device_nodes import HostDeviceNodes
from nvdra_nodeagent.hardware.driver_root import MountedDriverRoot
from nvdra_nodeagent.hardware.file_events import FileAnnouncer
from nvdra_nodeagent.hardware.imex_nodes import HostImexNodes
from nvdra_nodeagent.hardware.ports import Machine
from nvdra_sim.hardware import mig, tree
from nvdra_sim.hardware.board import Board
from nvdra_sim.hardware.calls import KNOWN_CALLS
from nvdra_sim.hardware.devices import (
    SimulatedDeviceNodes,
    SimulatedDriverModule,
    SimulatedPci,
)
from nvdra_sim.hardware.driver import SimulatedDriver
from nvdra_sim.hardware.errors import SimulationError, UnknownCall
from nvdra_sim.hardware.nvidia_smi import SimulatedNvidiaSmi
from nvdra_sim.hardware.nvml import SimulatedNvml
from nvdra_sim.hardware.profile import load_profile
from nvdra_sim.hardware.state import (
    ANY_CALL,
    STATE_FILE,
    FabricRegistration,
    Fault,
    StateFile,
)
from nvdra_sim.hardware.state_dir import open_state_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.hardware.ports import MigHandle
    from nvdra_sim.hardware.profile import MigProfile, MigTable, Profile
    from nvdra_sim.hardware.state import GpuState, MachineState


class SimulatedHardware:
    """Opened with `open` or `attach`. GPUs are named by their NVML index.

    Changes are seen at once by every process that has the same state directory open.
    """

    def __init__(self, profile: Profile, directory: Path, file: StateFile) -> None:
        self.profile = profile
        self.directory = directory
        self._file = file
        self._board = Board(profile, file)
        self.driver = SimulatedDriver(profile, directory, file)
        self.machine = self._wire()

    @classmethod
    def open(
        cls, profile: str, directory: Path, *, node: str = "", mig_layout: Path | None = None
    ) -> SimulatedHardware:
        """Make the machine at first use, open it later.

        An empty `node` or layout accepts the one that the machine was made with.

        :raises SimulationError: unknown profile, impossible layout, unusable directory.
        """
        known = load_profile(profile)
        directory = directory.absolute()
        # Later openers may have another working directory.
        source = str(Path(profile).absolute()) if profile.endswith(".json") else profile
        file = open_state_dir(source, known, directory, node=node, mig_layout=mig_layout)
        return cls(known, directory, file)

    @classmethod
    def attach(cls, directory: Path) -> SimulatedHardware:
        """Open the machine that is in `directory`, whatever it is."""
        directory = directory.absolute()
        file = StateFile(directory)
        return cls(load_profile(file.read().profile), directory, file)

    def state(self) -> MachineState:
        return self._file.read()

    def gpu_uuid(self, gpu: int) -> str:
        return self._board.gpu_uuid(self._checked(gpu))

    def mig_devices(self, gpu: int) -> tuple[MigHandle, ...]:
        instances = self.state().gpus[self._checked(gpu)].instances
        return tuple(self._board.mig_handle(gpu, each) for each in instances)

    def inject(
        self,
        call: str = ANY_CALL,
        *,
        code: int = 999,
        gpu: int | None = None,
        times: int | None = None,
        latency_s: float = 0.0,
        hang: bool = False,
    ) -> None:
        """Make `call` (a method of the ports, or `*`) take `latency_s` longer and fail with `code`.

        `code` is an NVML error number, 0 to be slow only; `gpu` None means all; `times` None means
        until `heal`. With `hang` the call does not return before `heal`. Of several faults for a
        call, the first injected plays.
        """
        if call != ANY_CALL and call not in KNOWN_CALLS:
            raise UnknownCall(call, known=KNOWN_CALLS)
        if gpu is not None:
            self._checked(gpu)
        fault = Fault(call, code=code, gpu=gpu, times=times, latency_s=latency_s, hang=hang)
        self._file.change(
            lambda state: msgspec.structs.replace(state, faults=(*state.faults, fault))
        )

    def lose(self, gpu: int) -> None:
        """The GPU falls off the bus: every NVML call about it answers `GpuLost`."""
        self._change_gpu(gpu, lambda state: msgspec.structs.replace(state, lost=True))

    def remove(self, gpu: int) -> None:
        """The GPU leaves the machine. Sessions of NVML that have seen it find it lost."""
        self._change_gpu(gpu, lambda state: msgspec.structs.replace(state, absent=True))
        tree.gpu_tree(self.profile, gpu).clear(self.directory)

    def insert(self, gpu: int) -> None:
        """The GPU is back in its slot. Sessions of NVML that begin from now on see it."""
        tree.gpu_tree(self.profile, self._checked(gpu)).lay_out(self.directory)
        self._change_gpu(gpu, lambda state: msgspec.structs.replace(state, absent=False))

    def heal(self, gpu: int | None = None) -> None:
        """End all faults, or those of one GPU, and bring lost GPUs back."""

        def step(state: MachineState) -> MachineState:
            faults = () if gpu is None else tuple(f for f in state.faults if f.gpu != gpu)
            gpus = tuple(
                msgspec.structs.replace(each, lost=each.lost and gpu not in (None, index))
                for index, each in enumerate(state.gpus)
            )
            return msgspec.structs.replace(state, faults=faults, gpus=gpus)

        self._file.change(step)

    def set_fabric(
        self, gpu: int | None = None, *, clique: int, cluster: str, state: int = 3, status: int = 0
    ) -> None:
        """Register a GPU, or all, with this NVLink fabric; numbers as NVML has them."""
        fabric = FabricRegistration(cluster=cluster, clique=clique, state=state, status=status)
        for index in range(len(self.profile.gpus)) if gpu is None else (gpu,):
            self._change_gpu(index, lambda each: msgspec.structs.replace(each, fabric=fabric))

    def set_mig_mode(self, gpu: int, *, enabled: bool) -> None:
        """Before Hopper this takes effect with `reset`.

        :raises NvmlError: no MIG on this GPU, or instances are alive.
        """
        self._change_gpu(gpu, lambda state: mig.mode_set(state, self.profile, enabled=enabled))

    def reset(self, gpu: int) -> None:
        """Reset the GPU: a pending MIG mode becomes the current one."""
        self._change_gpu(
            gpu, lambda state: msgspec.structs.replace(state, mig_enabled=state.mig_pending)
        )

    def create_mig(self, gpu: int, profile: str, *, start: int | None = None) -> MigHandle:
        """Cut a MIG device, at memory slice `start` or where the driver would put it.

        :raises NvmlError: MIG mode is off, the placement does not exist, or there is no room.
        """
        slot = self.profile.gpus[self._checked(gpu)]
        table, wanted = self._mig_profile(profile)
        with self._file.locked():
            state = self._file.read()
            changed, instance = mig.created(state.gpus[gpu], table, wanted, start=start)
            # Files first: whoever sees the instance finds its capabilities.
            tree.mig_tree(slot.minor, instance.gi_id, instance.ci_id).lay_out(self.directory)
            self._file.write(mig.with_gpu(state, gpu, changed))
        return self._board.mig_handle(gpu, instance)

    def destroy_mig(self, gpu: int, gi_id: int) -> None:
        """Remove a GPU instance and what is in it. :raises NotFound: there is none of that id."""
        slot = self.profile.gpus[self._checked(gpu)]
        with self._file.locked():
            state = self._file.read()
            changed, instance = mig.destroyed(state.gpus[gpu], gi_id)
            self._file.write(mig.with_gpu(state, gpu, changed))
            tree.mig_tree(slot.minor, instance.gi_id, instance.ci_id).clear(self.directory)

    def _wire(self) -> Machine:
        driver_root = self.directory / tree.DRIVER_ROOT
        files = MountedDriverRoot(driver_root, host_path=driver_root)
        procfs = self.directory / tree.PROCFS
        return Machine(
            nvml=SimulatedNvml(self._board, driver_root=files),
            pci=SimulatedPci(self._board, sysfs=self.directory / tree.SYSFS),
            device_nodes=SimulatedDeviceNodes(self._board, driver_root=driver_root, procfs=procfs),
            imex_nodes=HostImexNodes(
                HostDeviceNodes(driver_root, host_dev_root=driver_root, procfs=procfs),
                driver_root=driver_root,
                procfs=procfs,
            ),
            driver_root=files,
            nvidia_smi=SimulatedNvidiaSmi(self._board, driver_root=files),
            cdi_hook=HostHook(str(self.directory / tree.HOOK), host_root=Path("/")),
            driver_module=SimulatedDriverModule(self._board),
            announcers=(
                FileAnnouncer(self.directory, {"/": (STATE_FILE,)}),
                FileAnnouncer(driver_root),
            ),
        )

    def _change_gpu(self, gpu: int, step: Callable[[GpuState], GpuState]) -> None:
        self._checked(gpu)
        self._file.change(lambda state: mig.with_gpu(state, gpu, step(state.gpus[gpu])))

    def _checked(self, gpu: int) -> int:
        count = len(self.profile.gpus)
        if not 0 <= gpu < count:
            raise SimulationError(
                f"there is no GPU {gpu}; {self.profile.name} has 0 to {count - 1}"
            )
        return gpu

    def _mig_profile(self, name: str) -> tuple[MigTable, MigProfile]:
        table = self.profile.mig
        found = table.named(name) if table else None
        if table is None or found is None:
            known = ", ".join(each.name for each in table.profiles) if table else "none"
            raise SimulationError(
                f"{self.profile.product} has no MIG profile {name!r}; it has {known}"
            )
        return table, found


def simulated_machine(
    profile: str, state_dir: Path, *, node: str = "", mig_layout: Path | None = None
) -> Machine:
    """The ports of the simulated machine in `state_dir`, which is laid out at first use.

    `profile` is one of `profile_names()` or the path of a profile file; `mig_layout` a MIG layout
    file of the mig-parted form (`file.yaml#config` where it has several configs).

    :raises SimulationError: unknown profile, impossible layout, unusable directory.
    """
    return SimulatedHardware.open(profile, state_dir, node=node, mig_layout=mig_layout).machine
