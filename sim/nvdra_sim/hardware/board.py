"""A simulated machine's profile and live state: what all its ports read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from nvdra_nodeagent.hardware.errors import HardwareError
from nvdra_nodeagent.hardware.pci import normalise_bus_id
from nvdra_nodeagent.hardware.ports import MigHandle
from nvdra_sim.hardware import identity
from nvdra_sim.hardware.calls import GPU_IS_LOST, PCI_CALLS, nvml_error

if TYPE_CHECKING:
    from nvdra_sim.hardware.profile import Profile
    from nvdra_sim.hardware.state import (
        Fault,
        GpuState,
        MachineState,
        MigInstance,
        StateFile,
    )

_HANG_POLL_S = 0.01


class Board:
    """Shared by the ports of one process; other processes have their own over the same file."""

    def __init__(self, profile: Profile, file: StateFile) -> None:
        self.profile = profile
        self._file = file
        self._node = file.read().node
        self._index_by_bus = {
            normalise_bus_id(gpu.bus_id): index for index, gpu in enumerate(profile.gpus)
        }

    def state(self) -> MachineState:
        return self._file.read()

    def gpu_uuid(self, index: int) -> str:
        return identity.gpu_uuid(self._node, index)

    def mig_handle(self, index: int, instance: MigInstance) -> MigHandle:
        gi, ci = instance.gi_id, instance.ci_id
        uuid = identity.mig_uuid(self._node, index, gi, ci)
        return MigHandle(uuid=uuid, gi_id=gi, ci_id=ci)

    def index_of(self, bus_id: str) -> int | None:
        return self._index_by_bus.get(bus_id)

    def index_of_uuid(self, uuid: str) -> int | None:
        indices = range(len(self.profile.gpus))
        return next((index for index in indices if self.gpu_uuid(index) == uuid), None)

    def change_gpu(self, index: int, **values: int) -> None:
        """Set fields of the GPU's state."""

        def step(state: MachineState) -> MachineState:
            gpus = list(state.gpus)
            gpus[index] = msgspec.structs.replace(gpus[index], **values)
            return msgspec.structs.replace(state, gpus=tuple(gpus))

        self._file.change(step)

    def play_faults(self, call: str, *, gpu: int | None = None) -> None:
        """Take as long and fail as the state says that this call does.

        :raises NvmlError: with the fault's code; `GpuLost` for a lost GPU.
        """
        state = self.state()
        fault = next((fault for fault in state.faults if fault.hits(call, gpu)), None)
        if fault is not None:
            self._play(fault, call)
        if gpu is not None and call not in PCI_CALLS and _is_lost(state.gpus[gpu]):
            raise nvml_error(call, GPU_IS_LOST)

    def _play(self, fault: Fault, call: str) -> None:
        if fault.times is not None and not self._use_up(fault):
            return
        if fault.latency_s:
            time.sleep(fault.latency_s)
        while fault.hang and fault in self.state().faults:
            time.sleep(_HANG_POLL_S)
        if fault.code and call in PCI_CALLS:
            raise HardwareError(f"{call}: simulated failure {fault.code}")
        if fault.code:
            raise nvml_error(call, fault.code)

    def _use_up(self, fault: Fault) -> bool:
        """Count one hit; False when other callers have had the last one meanwhile."""
        used = False

        def step(state: MachineState) -> MachineState:
            nonlocal used
            faults = list(state.faults)
            for place, each in enumerate(faults):
                if each.times and each.is_same(fault):
                    used = True
                    faults[place : place + 1] = each.after_one_hit()
                    break
            return msgspec.structs.replace(state, faults=tuple(faults))

        self._file.change(step)
        return used


def _is_lost(gpu: GpuState) -> bool:
    """To a session that has seen it; one that begins later does not see an absent GPU."""
    return gpu.lost or gpu.absent
