"""What changes on a simulated machine, in one file that several processes share.

`hardware.json` is re-read when it has changed and replaced as a whole under a lock file, so an
agent in one process sees at once what a test or a person did in another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING, Annotated

import msgspec

from nvdra_nodeagent.durable import write_durably
from nvdra_nodeagent.errors import AgentError
from nvdra_sim.hardware.errors import UnusableStateDir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STATE_FILE = "hardware.json"
LOCK_FILE = ".nvdra-simulated-hardware"  # also marks a directory as ours
ANY_CALL = "*"

_VERSION = 1


class MigInstance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A live GPU instance with the compute instance that fills it."""

    gi_id: int
    ci_id: int
    profile_id: int
    start: int
    size: int


class FabricRegistration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the GPU says of its NVLink fabric: `nvmlGpuFabricState_t` and `nvmlReturn_t`."""

    cluster: str
    clique: int
    state: int = 3
    status: int = 0


class GpuState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One GPU's changeable side. `mig_pending` is the mode after the next GPU reset.

    `time_slice` and `compute_mode` are the driver's numbers and last until it is unloaded.
    `fabric` None: as the profile has it.
    """

    mig_enabled: bool = False
    mig_pending: bool = False
    lost: bool = False
    instances: tuple[MigInstance, ...] = ()
    time_slice: int = 0
    compute_mode: int = 0
    absent: bool = False
    fabric: FabricRegistration | None = None


class DriverState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The kernel module and the driver's files.

    `version` is that of the module, `files` that of the files ("" while there are none); None and
    "" stand for the profile's. `load` counts how often the module was loaded.
    """

    loaded: bool = True
    load: int = 1
    version: str = ""
    files: str | None = None


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that fails with NVML error `code` (0: succeeds) after `latency_s`.

    With `hang` it does not return before the fault is healed.

    `gpu` is the NVML index; None means any GPU and calls about no GPU. `times` counts down to the
    fault's end; None means until healed.
    """

    call: str = ANY_CALL
    code: int = 999
    gpu: int | None = None
    times: Annotated[int, msgspec.Meta(gt=0)] | None = None
    latency_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    hang: bool = False

    def hits(self, call: str, gpu: int | None) -> bool:
        return self.call in (ANY_CALL, call) and self.gpu in (None, gpu)

    def is_same(self, other: Fault) -> bool:
        """Whether both are one fault, counted down to different numbers."""
        return msgspec.structs.replace(self, times=other.times) == other

    def after_one_hit(self) -> list[Fault]:
        if self.times is None:
            return [self]
        return [msgspec.structs.replace(self, times=self.times - 1)] if self.times > 1 else []


class MachineState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. `layout` says which MIG layout the machine was started with."""

    profile: str
    node: str
    layout: str
    gpus: tuple[GpuState, ...]
    faults: tuple[Fault, ...] = ()
    driver: DriverState = DriverState()
    version: int = _VERSION


# Decoders are built on import: two threads that build one at once crash the process.
_decode = msgspec.json.Decoder(MachineState).decode


class StateFile:
    """`hardware.json` in `directory`. Safe to use from several threads and processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / STATE_FILE
        self._seen: tuple[int, int, int] | None = None
        self._state: MachineState | None = None
        self._lock = threading.Lock()

    def exists(self) -> bool:
        return self._path.is_file()

    def read(self) -> MachineState:
        """The current state; a `stat` while nothing has changed.

        :raises UnusableStateDir: the file is gone or damaged.
        """
        with self._lock:
            try:
                status = self._path.stat()
                version = (status.st_mtime_ns, status.st_ino, status.st_size)
                if self._state is None or version != self._seen:
                    self._state = _decode(self._path.read_bytes())
                    self._seen = version
            except (OSError, msgspec.MsgspecError) as error:
                raise UnusableStateDir(
                    self._directory,
                    f"{STATE_FILE} cannot be read ({error}); remove the directory to start anew",
                ) from error
            return self._state

    def change(self, step: Callable[[MachineState], MachineState]) -> MachineState:
        """Replace the state by `step(state)`; nobody else changes it in between."""
        with self.locked():
            state = step(self.read())
            self.write(state)
        return state

    def write(self, state: MachineState) -> None:
        """Only under `locked()`. :raises UnusableStateDir: not writable, or the disk is full."""
        try:
            write_durably(self._path, msgspec.json.format(msgspec.json.encode(state)) + b"\n")
        except AgentError as error:
            raise UnusableStateDir(self._directory, str(error)) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other threads and processes. Not re-entrant."""
        descriptor = os.open(self._directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
