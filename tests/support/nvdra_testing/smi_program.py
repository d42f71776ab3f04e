"""A driver root whose nvidia-smi is a script that remembers time slices in files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SCRIPT: Final = r"""#!/bin/sh
here=${0%/*}
echo "$*" >> "$here/calls"
echo "$LD_PRELOAD" > "$here/preload"
if [ -e "$here/hang" ]; then echo "working on it"; sleep 600; fi
if [ -e "$here/status" ]; then cat "$here/said"; exit "$(cat "$here/status")"; fi
[ "$1 $2" = "compute-policy -i" ] || { echo "unknown: $*" >&2; exit 2; }
[ -e "$here/$3" ] || { echo "No devices were found" >&2; exit 6; }
case $4 in
--list)
    for name in Default Short Medium Long; do
        [ "$(cat "$here/$3")" = "${number:=0}" ] && value=$name
        number=$((number + 1))
    done
    echo "+-------------------------------+"
    echo "|  GPU  Name           Value    |"
    echo "|   0   Timeslice      $value   |"
    ;;
--set-timeslice)
    case $5 in [0-3]) echo "$5" > "$here/$3" ;; *) echo "Invalid value $5"; exit 2 ;; esac
    ;;
esac
"""


@dataclass(frozen=True, slots=True)
class SmiProgram:
    """`driver_root` has the program and no more."""

    driver_root: Path

    @property
    def path(self) -> Path:
        return self.driver_root / "usr/bin/nvidia-smi"

    @property
    def calls(self) -> list[str]:
        path = self.path.with_name("calls")
        return path.read_text().splitlines() if path.exists() else []

    @property
    def preloaded(self) -> str:
        return self.path.with_name("preload").read_text().strip()

    def fail(self, status: int, said: str = "") -> None:
        """From now on it writes this and ends with the status."""
        self.path.with_name("said").write_text(said)
        self.path.with_name("status").write_text(str(status))

    def hang(self) -> None:
        self.path.with_name("hang").touch()


def an_smi_program(driver_root: Path, *, gpus: Iterable[str]) -> SmiProgram:
    program = SmiProgram(driver_root)
    program.path.parent.mkdir(parents=True)
    program.path.write_text(_SCRIPT)
    program.path.chmod(0o755)
    for uuid in gpus:
        program.path.with_name(uuid).write_text("0\n")
    return program
