"""What the node agent has nvidia-smi do, on a simulated machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.hardware.errors import NvmlError
from nvdra_nodeagent.hardware.nvidia_smi import INTERVALS, PROGRAM, program_failed

if TYPE_CHECKING:
    from nvdra_nodeagent.hardware.ports import DriverRoot
    from nvdra_sim.hardware.board import Board

_INVALID_ARGUMENT: Final = 2
_NOT_FOUND: Final = 6


class SimulatedNvidiaSmi:
    """Reads and writes the machine's state. Faults fail it with their code as exit status."""

    def __init__(self, board: Board, *, driver_root: DriverRoot) -> None:
        self._board = board
        self._driver_root = driver_root

    def time_slice(self, gpu_uuid: str) -> int | None:
        index = self._enter("time_slice", gpu_uuid, "--list")
        return self._board.state().gpus[index].time_slice

    def set_time_slice(self, gpu_uuid: str, interval: int) -> None:
        option = f"--set-timeslice {interval}"
        index = self._enter("set_time_slice", gpu_uuid, option)
        if not 0 <= interval < len(INTERVALS):
            output = f"Invalid value {interval}"
            raise program_failed(f"{PROGRAM} {option}", status=_INVALID_ARGUMENT, output=output)
        self._board.change_gpu(index, time_slice=interval)

    def _enter(self, call: str, gpu_uuid: str, option: str) -> int:
        """The GPU's index, once faults have been played."""
        self._driver_root.binary(PROGRAM)
        command = f"{PROGRAM} compute-policy -i {gpu_uuid} {option}"
        index = self._board.index_of_uuid(gpu_uuid)
        try:
            self._board.play_faults(call, gpu=index)
        except NvmlError as error:
            raise program_failed(command, status=error.code, output=error.reason) from error
        if index is None:
            output = "No devices were found"
            raise program_failed(command, status=_NOT_FOUND, output=output)
        return index
