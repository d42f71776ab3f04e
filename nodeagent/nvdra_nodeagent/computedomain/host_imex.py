"""The `nvidia-imex` that the host runs itself: is it ready? Asked by the driver's own program."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.errors import NodeFault
from nvdra_nodeagent.hardware.errors import HardwareError

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_nodeagent.hardware.ports import DriverRoot

PROGRAM: Final = "nvidia-imex-ctl"
_TIMEOUT_S: Final = 10.0
_READY: Final = "READY"


class HostImex:
    """Readiness by the exact word: `NOT READY` is not ready. Blocks."""

    def __init__(self, root: DriverRoot, *, socket: Path) -> None:
        """`socket` is its command socket, as the host names it: it is looked for below the driver
        root first, which is where the host's files are seen from a container."""
        self._root = root
        self._socket = socket

    def obstacle(self, domain: str, clique: str) -> str:
        """Why the host's IMEX cannot be used yet; "" when it can.

        :raises NodeFault: the program is not there or cannot be run.
        """
        try:
            program = self._root.binary(PROGRAM)
            done = subprocess.run(
                [str(program), "-q", f"--u={self._seen_socket()}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{PROGRAM} did not answer within {_TIMEOUT_S:g} s"
        except (HardwareError, OSError) as error:
            hint = "install nvidia-imex on the host, or use imex.mode=driverManaged"
            raise NodeFault("HostImexMissing", f"{PROGRAM}: {error}", hint=hint) from error
        said = " ".join((done.stdout or done.stderr).split())[:200]
        if done.returncode == 0 and done.stdout.strip() == _READY:
            return ""
        return f"the host's nvidia-imex says: {said or 'nothing'}"

    def _seen_socket(self) -> Path:
        seen = self._root.container_path / self._socket.relative_to(self._socket.anchor)
        return seen if seen.exists() else self._socket
