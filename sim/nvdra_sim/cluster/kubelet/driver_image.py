"""The image of the driver's own programs in containers: this machine's Python, and the program.

Python's library is mounted where it is on this machine; everything else of it stays outside. So
that a program that needs more than its image would have does not run here either.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import nvdra_nodeagent
from nvdra_sim.cluster.kubelet.cdi_spec import Mount
from nvdra_sim.cluster.kubelet.images import build_root, copy_in, libraries_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DRIVER_IMAGE: Final = "nvdra/simulated:1"
"""The name by which Pods ask for it."""

_HOME: Final = "/usr/lib/nvdra"
_PROGRAMS: Final = {"nvdra-imex-daemon": "nvdra_nodeagent.imex.main"}
_SHELL: Final = ("sh", "bash", "cat", "ls", "kill", "sleep")
# Those whose libraries are not only the C library's.
_EXTENSIONS: Final = ("_ctypes", "_socket", "math", "select")
_START: Final = """#!/bin/sh
exec {python} -I -S -c '
import sys
sys.path.append("{home}")
sys.argv[0] = "{name}"
from {module} import main
main()' "$@"
"""


@dataclass(frozen=True, slots=True)
class DriverImage:
    """An `ImageContent`. `programs`: names of programs, and the modules whose `main` they are."""

    programs: Mapping[str, str]
    label: str = "driver"

    @property
    def mounts(self) -> Sequence[Mount]:
        library = Path(sysconfig.get_path("stdlib"))
        package = _package()
        return (
            _read_only(library, str(library)),
            _read_only(package, f"{_HOME}/{package.name}"),
        )

    def host_command(self, program: str) -> tuple[str, ...]:
        module = self.programs.get(program)
        return (sys.executable, "-c", f"from {module} import main; main()") if module else ()

    def build(self, root: Path) -> None:
        build_root(root, _SHELL)
        python = _interpreter()
        for path in (python, *libraries_of([python, *_extensions()])):
            copy_in(root, path)
        for name in ("python3", python.name):
            link = root / "usr/bin" / name
            if not link.exists():
                link.symlink_to(python)
        for name, module in self.programs.items():
            script = root / "usr/bin" / name
            script.write_text(_START.format(python=python, home=_HOME, name=name, module=module))
            script.chmod(0o755)


def driver_images() -> Mapping[str, DriverImage]:
    """By name, for an `ImageStore`."""
    return {DRIVER_IMAGE: DriverImage(_PROGRAMS)}


def _interpreter() -> Path:
    """The program itself: environments have links to it, which lead nowhere inside."""
    return Path(sys.executable).resolve()


def _package() -> Path:
    return Path(str(nvdra_nodeagent.__file__)).parent


def _extensions() -> list[Path]:
    specs = (importlib.util.find_spec(name) for name in _EXTENSIONS)
    return [Path(spec.origin) for spec in specs if spec and spec.has_location and spec.origin]


def _read_only(path: Path, target: str) -> Mount:
    return Mount(host_path=str(path), container_path=target, options=["rbind", "ro"])
