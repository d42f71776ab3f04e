"""`nvdra-wait-for-driver`: ends when the node's NVIDIA driver answers, and says what it misses.

Runs before the agent, with the parent of the driver root mounted: an operator's driver container
mounts its root late, and only a mount of the parent sees it come. The check does not touch GPUs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_kube.logs import configure
from nvdra_nodeagent.hardware.driver_root import MountedDriverRoot
from nvdra_nodeagent.hardware.errors import DriverMissing, HardwareError

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger(__name__)

PAUSE_S: Final = 10.0
HINT_EVERY: Final = 6
_OPERATOR_ROOT: Final = Path("/run/nvidia/driver")
_PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class DriverCheck:
    """`root` is the driver root on the host, `parent` where its parent is mounted here."""

    root: Path
    parent: Path

    @property
    def here(self) -> Path:
        return self.parent / self.root.name

    def missing(self) -> str:
        """What keeps the driver from being used; empty when nothing does."""
        files = MountedDriverRoot(self.here, host_path=self.root)
        try:
            program = files.binary("nvidia-smi")
            library = files.library("libnvidia-ml.so.1")
        except DriverMissing as exc:
            return f"{exc.name} is not under {self.root}"
        except HardwareError as exc:
            return str(exc)
        return _answer(program, library)

    def hint(self) -> str:
        """What a person can do about it, from what is there."""
        operator = MountedDriverRoot(
            self.parent / str(_OPERATOR_ROOT).lstrip("/"), host_path=_OPERATOR_ROOT
        )
        if self.root == Path("/") and _has_driver(operator):
            return f"a driver is at {_OPERATOR_ROOT}: set nvidiaDriverRoot={_OPERATOR_ROOT}"
        if self.root == _OPERATOR_ROOT:
            return "the GPU operator mounts its driver there: look at its driver pod on this node"
        if not _entries(self.here):
            return f"{self.root} is empty or absent on the host: is nvidiaDriverRoot right?"
        return f"install the NVIDIA driver on this node, or set nvidiaDriverRoot (now {self.root})"


def main() -> None:
    """Entry point. Exit status 0 when the driver answers, and after a stop signal."""
    configure(verbosity=int(os.environ.get("LOG_VERBOSITY") or "4"))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    wait(check_from(os.environ), stop)
    sys.exit(0)


def check_from(environ: Mapping[str, str]) -> DriverCheck:
    root = Path(environ.get("NVIDIA_DRIVER_ROOT") or "/")
    parent = environ.get("DRIVER_ROOT_PARENT_CTR_PATH") or "/driver-root-parent"
    return DriverCheck(root, Path(parent))


def wait(check: DriverCheck, stop: threading.Event, *, pause_s: float = PAUSE_S) -> bool:
    """Check until the driver is there or `stop` is set; whether it is there."""
    attempt = 0
    while not stop.is_set():
        cause = check.missing()
        if not cause:
            log.info("the NVIDIA driver answers", root=str(check.root))
            return True
        hint = {"hint": check.hint()} if attempt % HINT_EVERY == 0 else {}
        log.warning("waiting for the NVIDIA driver", missing=cause, **hint)
        attempt += 1
        stop.wait(pause_s)
    log.info("stopped while waiting")
    return False


def _answer(program: Path, library: Path) -> str:
    # --version asks the library only: GPUs may be bound to another driver at this moment.
    try:
        done = subprocess.run(
            [program, "--version"],
            env={"LD_PRELOAD": str(library)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{program} cannot be run: {exc}"
    if done.returncode == 0:
        return ""
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return f"{program} --version ended with {done.returncode}: {said[-1] if said else 'no output'}"


def _has_driver(files: MountedDriverRoot) -> bool:
    try:
        files.binary("nvidia-smi")
    except HardwareError:
        return False
    return True


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


if __name__ == "__main__":
    main()
