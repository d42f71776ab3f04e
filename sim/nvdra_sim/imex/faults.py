"""What a simulated `nvidia-imex` shall do wrong, from `imex-faults.json` beside its configuration.

All members are optional: `start_s` (time until READY), `never_ready`, `crash` (exit status at
start), `crash_after_s`, `ignore_term`, `hang` (commands get no answer), `state` (what it says of
itself), `broken_peers` (lines of the nodes file that it does not connect to), `signal_window_s`.
The file is read at every look: faults come and go while the program runs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FAULTS_FILE = "imex-faults.json"
SIGNAL_WINDOW_S = 5.0


class Faults:
    """The file's members as they are now; a file that is no JSON object injects nothing."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FAULTS_FILE
        self._version: object = None
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        self._refresh()
        return self._values.get(name)

    @property
    def signal_window_s(self) -> float:
        """How long a second SIGUSR1 is ignored."""
        found = self["signal_window_s"]
        return SIGNAL_WINDOW_S if found is None else float(found)

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino)
            if version != self._version:
                found = json.loads(self._path.read_text())
                self._values = found if isinstance(found, dict) else {}
                self._version = version
        except FileNotFoundError:
            self._version, self._values = None, {}
        except (OSError, ValueError, RecursionError):
            self._values = {}
