"""Child processes: started in a group of their own, ended with it, and never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Final, NamedTuple

_PR_SET_PDEATHSIG: Final = 1
_RESET: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # the interpreter ignores them
_NOT_EXECUTABLE: Final = 127


class Ended(NamedTuple):
    """A child that is gone; `status` is negative for the signal that killed it."""

    pid: int
    status: int

    def __str__(self) -> str:
        if self.status < 0:
            return f"was killed by signal {-self.status}"
        return f"ended with status {self.status}"


def find_program(name: str) -> str | None:
    """The file that `name` means: as it is with a slash in it, otherwise searched on PATH."""
    if "/" in name:
        return name if _is_program(name) else None
    path = os.environ.get("PATH", os.defpath)
    candidates = (os.path.join(folder or ".", name) for folder in path.split(os.pathsep))  # noqa: PTH118
    return next((each for each in candidates if _is_program(each)), None)


def spawn(
    program: str, *arguments: str, output: int | None = None, errors: int | None = None
) -> int:
    """Start `program` (a path) and return its process id, once it really runs.

    It dies with this process, by SIGKILL: two `nvidia-imex` on one node disturb each other.

    :raises OSError: it cannot be executed.
    """
    receiver, sender = os.pipe()  # closed by exec; else brings what exec said
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl  # looked up here: after the fork as little as possible happens
    pid = os.fork()
    if pid == 0:
        try:
            _leave_parent()
            for target, source in enumerate((output, errors), start=1):
                if source is not None:
                    os.dup2(source, target)
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == parent:  # else it died before this could notice
                os.execv(program, (program, *arguments))
        except OSError as error:
            os.write(sender, str(error.errno).encode())
        finally:
            os._exit(_NOT_EXECUTABLE)
    os.close(sender)
    try:
        failure = os.read(receiver, 16)
    finally:
        os.close(receiver)
    if failure:
        os.waitpid(pid, 0)
        number = int(failure)
        raise OSError(number, os.strerror(number), program)
    return pid


def signal_process(pid: int, number: int) -> None:
    """To the process alone; one that is gone needs no signal."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(pid: int) -> None:
    """SIGKILL to the process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def reap() -> list[Ended]:
    """All children that have ended, and with each the rest of its group.

    As first process of a container the daemon also inherits children that nobody else waits for.
    """
    ended: list[Ended] = []
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return ended
        if found is None:
            return ended
        kill_group(found.si_pid)  # while the number is still taken
        _, status = os.waitpid(found.si_pid, 0)
        ended.append(Ended(found.si_pid, os.waitstatus_to_exitcode(status)))


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)  # noqa: PTH113 - pathlib costs 1 MiB


def _leave_parent() -> None:
    """A group of its own, and signals as a program expects them."""
    os.setpgid(0, 0)
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
