"""The driver's own nvidia-smi, run for what NVML has no call for.

The program is the host's and this process's C library may be another one: it runs as it is, without
chroot, only with the NVML library of its own driver preloaded.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from typing import IO, TYPE_CHECKING, Final, cast

from nvdra_nodeagent.hardware.errors import (
    DriverMissing,
    GpuLost,
    HardwareError,
    NotFound,
    NotSupported,
    ProgramFailed,
    ProgramTimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nvdra_nodeagent.hardware.errors import NvmlError
    from nvdra_nodeagent.hardware.ports import DriverRoot

PROGRAM: Final = "nvidia-smi"
LIBRARY: Final = "libnvidia-ml.so.1"
DEFAULT_TIMEOUT_S: Final = 10.0
"""Without persistence mode the program first brings up every GPU, a second or two each."""

INTERVALS: Final = ("default", "short", "medium", "long")

_DYING_S: Final = 1.0
_LONGEST_OUTPUT: Final = 1000
# nvidia-smi(1), "RETURN VALUE": the numbers are those of nvmlReturn_t.
_CLASSES: Final[Mapping[int, type[NvmlError]]] = {
    3: NotSupported,
    13: NotSupported,
    6: NotFound,
    15: GpuLost,
}
# A row of `compute-policy --list`: the policy's name, then its value.
_TIME_SLICE_ROW: Final = re.compile(r"time-?slice\W+(\w+)", re.IGNORECASE)


class DriverNvidiaSmi:
    """`nvidia-smi` below the driver root."""

    def __init__(
        self,
        root: DriverRoot,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        kill: Callable[[int, int], None] = os.killpg,
    ) -> None:
        """`kill` sends a signal to a process group."""
        self._root = root
        self._timeout_s = timeout_s
        self._kill = kill
        self._undead: dict[str, subprocess.Popen[bytes]] = {}

    def time_slice(self, gpu_uuid: str) -> int | None:
        return listed_time_slice(self._run(gpu_uuid, "--list"))

    def set_time_slice(self, gpu_uuid: str, interval: int) -> None:
        self._run(gpu_uuid, "--set-timeslice", str(interval))

    def _run(self, gpu_uuid: str, *what: str) -> str:
        program = self._root.binary(PROGRAM)
        arguments = ("compute-policy", "-i", gpu_uuid, *what)
        command = " ".join((PROGRAM, *arguments))
        self._refuse_undead(gpu_uuid, command)
        try:
            process = subprocess.Popen(
                [str(program), *arguments],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it ends together with what it has started
            )
        except OSError as error:
            raise HardwareError(f"cannot start {program}: {error.strerror or error}") from error
        return self._output(process, gpu_uuid, command)

    def _refuse_undead(self, gpu_uuid: str, command: str) -> None:
        """The next one would hang too, and they would pile up."""
        before = self._undead.get(gpu_uuid)
        if before is None:
            return
        if before.poll() is None:
            why = f"process {before.pid}, which asked this GPU before, does not even die"
            raise ProgramTimedOut(command, after_s=self._timeout_s, output=why)
        del self._undead[gpu_uuid]

    def _output(self, process: subprocess.Popen[bytes], gpu_uuid: str, command: str) -> str:
        try:
            output, _ = process.communicate(timeout=self._timeout_s)
        except subprocess.TimeoutExpired as error:
            said = _text(self._killed(process))
            if process.returncode is None:
                cast("IO[bytes]", process.stdout).close()
                self._undead[gpu_uuid] = process
            raise ProgramTimedOut(command, after_s=self._timeout_s, output=said) from error
        if process.returncode:
            raise program_failed(command, status=process.returncode, output=_text(output))
        return _text(output)

    def _killed(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """What it had written. One that hangs in the driver does not even die: left behind."""
        with contextlib.suppress(ProcessLookupError):
            self._kill(process.pid, signal.SIGKILL)
        try:
            return process.communicate(timeout=_DYING_S)[0]
        except subprocess.TimeoutExpired as error:
            return cast("bytes | None", error.output)

    def _environment(self) -> dict[str, str]:
        preload = [os.environ.get("LD_PRELOAD", "")]
        with contextlib.suppress(DriverMissing):  # the program may find it, or says so
            preload.insert(0, str(self._root.library(LIBRARY)))
        return {**os.environ, "LC_ALL": "C", "LD_PRELOAD": ":".join(filter(None, preload))}


def program_failed(command: str, *, status: int, output: str) -> HardwareError:
    """The error for a program of the driver that ended with `status`."""
    if status in _CLASSES:
        return _CLASSES[status](f"`{command}`", code=status, reason=output or "no output")
    outcome = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
    return ProgramFailed(command, outcome=outcome, output=output)


def listed_time_slice(text: str) -> int | None:
    """The time slice in a list of compute policies; None when it is not told, or not understood."""
    row = _TIME_SLICE_ROW.search(text)
    name = row[1].lower() if row else ""
    if name.isdecimal() and int(name) < len(INTERVALS):
        return int(name)
    return INTERVALS.index(name) if name in INTERVALS else None


def _text(output: bytes | None) -> str:
    text = " ".join((output or b"").decode(errors="replace").split())
    return text if len(text) <= _LONGEST_OUTPUT else f"{text[:_LONGEST_OUTPUT]} ..."
