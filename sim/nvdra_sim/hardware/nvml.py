"""NVML of a simulated machine."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_nodeagent.hardware.errors import SessionLost
from nvdra_nodeagent.hardware.ports import (
    CiInstance,
    FabricInfo,
    FabricState,
    GiInstance,
    GiProfile,
    MigHandle,
    MigMode,
    Placement,
)
from nvdra_sim.hardware import identity
from nvdra_sim.hardware.calls import (
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    INVALID_ARGUMENT,
    LIB_RM_VERSION_MISMATCH,
    NOT_FOUND,
    NOT_SUPPORTED,
    UNINITIALIZED,
    nvml_error,
)

if TYPE_CHECKING:
    from nvdra_nodeagent.hardware.ports import DriverRoot
    from nvdra_sim.hardware.board import Board
    from nvdra_sim.hardware.profile import GpuSlot, MigTable
    from nvdra_sim.hardware.state import GpuState, MigInstance

_LIBRARY = "libnvidia-ml.so.1"
_COMPUTE_MODES = (0, 2, 3)

# A compute instance in one of NVML's "more memory" slices (REV2) has a profile of its own.
_GI_ONE_SLICE_REV2 = 9
_CI_ONE_SLICE_REV1 = 7
_CI_PROFILES = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4, 8: 5, 6: 6}


@dataclass(frozen=True, slots=True, eq=False)
class _Session:
    """What NVML learns when it is initialised; compared by identity."""

    load: int
    files: str | None
    slots: tuple[int, ...]


class SimulatedNvml:
    """As strict about initialisation as the library.

    A session knows the GPUs that were there when it began, and ends with the load of the driver.
    """

    def __init__(self, board: Board, *, driver_root: DriverRoot) -> None:
        self._board = board
        self._driver_root = driver_root
        self._session: _Session | None = None
        self._lost = False
        self._lock = threading.Lock()

    def init(self) -> None:
        with self._lock:
            self._driver_root.library(_LIBRARY)
            driver = self._board.state().driver
            if self._session and not self._lost and self._session.files == driver.files:
                return
            self._session = None
            self._board.play_faults("init")
            self._session, self._lost = self._begin(), False

    def shutdown(self) -> None:
        with self._lock:
            if self._session:
                self._session = None
                self._board.play_faults("shutdown")

    def driver_version(self) -> str:
        self.ask("driver_version")
        return self._board.state().driver.version or self._board.profile.driver_version

    def cuda_driver_version(self) -> int:
        self.ask("cuda_driver_version")
        return self._board.profile.cuda_version

    def device_count(self) -> int:
        return len(self.ask("device_count").slots)

    def device(self, index: int) -> SimulatedNvmlDevice:
        slots = self._session.slots if self._session else self._slots()
        if not 0 <= index < len(slots):
            raise nvml_error("device", INVALID_ARGUMENT)
        session = self.ask("device", gpu=slots[index])
        return SimulatedNvmlDevice(self, self._board, slots[index], session)

    def device_by_uuid(self, uuid: str) -> SimulatedNvmlDevice:
        slot = self._board.index_of_uuid(uuid)
        if slot is None or (self._session and slot not in self._session.slots):
            self.ask("device_by_uuid")
            raise nvml_error("device_by_uuid", NOT_FOUND)
        session = self.ask("device_by_uuid", gpu=slot)
        return SimulatedNvmlDevice(self, self._board, slot, session)

    def ask(
        self, call: str, *, gpu: int | None = None, session: _Session | None = None
    ) -> _Session:
        """What every call goes through: initialised? lost? any fault to play?

        `session` is that of a device, which is worth nothing in another one.
        """
        current = self._session
        if current is None or (session and session is not current):
            raise nvml_error(call, UNINITIALIZED)
        driver = self._board.state().driver
        try:
            if not driver.loaded or driver.load != current.load:
                raise nvml_error(call, DRIVER_NOT_LOADED)
            self._board.play_faults(call, gpu=gpu)
        except SessionLost:
            self._lost = True
            raise
        return current

    def _begin(self) -> _Session:
        driver, profile = self._board.state().driver, self._board.profile
        if not driver.loaded:
            raise nvml_error("init", DRIVER_NOT_LOADED)
        files = profile.driver_version if driver.files is None else driver.files
        if files != (driver.version or profile.driver_version):
            raise nvml_error("init", LIB_RM_VERSION_MISMATCH)
        return _Session(driver.load, driver.files, self._slots())

    def _slots(self) -> tuple[int, ...]:
        gpus = self._board.state().gpus
        return tuple(slot for slot, gpu in enumerate(gpus) if not gpu.absent)


class SimulatedNvmlDevice:
    """One GPU, by its slot: its place in the profile."""

    def __init__(self, nvml: SimulatedNvml, board: Board, index: int, session: _Session) -> None:
        self._nvml = nvml
        self._session = session
        self._board = board
        self._index = index

    def uuid(self) -> str:
        self._ask("uuid")
        return self._board.gpu_uuid(self._index)

    def minor_number(self) -> int:
        self._ask("minor_number")
        return self._slot.minor

    def name(self) -> str:
        self._ask("name")
        return self._board.profile.product

    def memory_bytes(self) -> int:
        self._ask("memory_bytes")
        return self._board.profile.memory_bytes

    def architecture(self) -> int:
        self._ask("architecture")
        return self._board.profile.architecture

    def brand(self) -> int:
        self._ask("brand")
        return self._board.profile.brand

    def compute_capability(self) -> tuple[int, int]:
        self._ask("compute_capability")
        return self._board.profile.compute_capability

    def pci_bus_id(self) -> str:
        self._ask("pci_bus_id")
        return self._slot.bus_id

    def addressing_mode(self) -> int:
        self._ask("addressing_mode")
        mode = self._board.profile.addressing_mode
        if mode is None:
            raise nvml_error("addressing_mode", FUNCTION_NOT_FOUND)
        return mode

    def mig_mode(self) -> MigMode:
        self._ask("mig_mode")
        self._table("mig_mode")
        state = self._state
        return MigMode(current=state.mig_enabled, pending=state.mig_pending)

    def mig_devices(self) -> tuple[MigHandle, ...]:
        self._ask("mig_devices")
        return tuple(
            self._board.mig_handle(self._index, instance) for instance in self._state.instances
        )

    def compute_mode(self) -> int:
        self._ask("compute_mode")
        return self._state.compute_mode

    def set_compute_mode(self, mode: int) -> None:
        self._ask("set_compute_mode")
        if mode not in _COMPUTE_MODES:
            raise nvml_error("set_compute_mode", INVALID_ARGUMENT)
        self._board.change_gpu(self._index, compute_mode=mode)

    def fabric_info(self) -> FabricInfo:
        self._ask("fabric_info")
        profile, changed = self._board.profile.fabric, self._state.fabric
        if changed is not None:
            return FabricInfo(changed.cluster, changed.clique, changed.state, changed.status)
        if profile is None:
            raise nvml_error("fabric_info", NOT_SUPPORTED)
        return FabricInfo(profile.cluster, profile.clique, FabricState.COMPLETED, 0)

    def gi_profile(self, index: int) -> GiProfile:
        self._ask("gi_profile")
        table = self._table("gi_profile")
        # Before Hopper the driver knows the profiles only while MIG mode is on.
        hidden = self._board.profile.mig_mode_needs_reset and not self._state.mig_enabled
        found = next((each for each in table.profiles if each.index == index), None)
        if found is None or hidden:
            raise nvml_error("gi_profile", NOT_SUPPORTED)
        return GiProfile(
            index=index,
            id=found.id,
            slice_count=found.slices,
            instance_count=found.instances,
            multiprocessors=found.multiprocessors,
            copy_engines=found.copy_engines,
            decoders=found.decoders,
            encoders=found.encoders,
            jpeg_engines=found.jpeg_engines,
            ofa_engines=found.ofa_engines,
            memory_mb=found.memory_mib,
        )

    def gpu_instance(self, gi_id: int) -> GiInstance:
        self._ask("gpu_instance")
        instance = self._instance(gi_id, call="gpu_instance")
        placement = Placement(start=instance.start, size=instance.size)
        return GiInstance(id=gi_id, profile_id=instance.profile_id, placement=placement)

    def compute_instance(self, gi_id: int, ci_id: int) -> CiInstance:
        self._ask("compute_instance")
        instance = self._instance(gi_id, call="compute_instance")
        if instance.ci_id != ci_id:
            raise nvml_error("compute_instance", NOT_FOUND)
        profile = self._table("compute_instance").with_id(instance.profile_id)
        more_memory = profile.index == _GI_ONE_SLICE_REV2
        profile_id = _CI_ONE_SLICE_REV1 if more_memory else _CI_PROFILES[profile.slices]
        return CiInstance(id=ci_id, gi_id=gi_id, profile_id=profile_id, slice_count=profile.slices)

    def _ask(self, call: str) -> None:
        self._nvml.ask(call, gpu=self._index, session=self._session)

    @property
    def _slot(self) -> GpuSlot:
        return self._board.profile.gpus[self._index]

    @property
    def _state(self) -> GpuState:
        return self._board.state().gpus[self._index]

    def _table(self, call: str) -> MigTable:
        table = self._board.profile.mig
        if table is None:
            raise nvml_error(call, NOT_SUPPORTED)
        return table

    def _instance(self, gi_id: int, *, call: str) -> MigInstance:
        self._table(call)
        state = self._state
        if not state.mig_enabled:
            raise nvml_error(call, NOT_SUPPORTED)
        for instance in state.instances:
            if instance.gi_id == gi_id:
                return instance
        code = NOT_FOUND if 0 <= gi_id < identity.GPU_INSTANCES else INVALID_ARGUMENT
        raise nvml_error(call, code)
