"""The stand-ins as files: each one script of its own, for containers that have only a Python.

A driver root's `usr/bin` is injected file by file, so nothing else of the simulator can be relied
on to be there. Containers without Python 3 get a message and exit status 127.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Final

PROGRAMS: Final = {
    "nvidia-imex": ("settings_file", "configuration", "faults", "lines", "links", "service"),
    "nvidia-imex-ctl": ("settings_file", "control"),
}
"""Which modules make up which program; the last one has its `main`."""

_FUTURE: Final = "from __future__ import annotations\n"
# To a shell this is a few commands, to Python it is the file's docstring.
_START: Final = '''#!/bin/sh
""":"
for python in {python} python3 /usr/bin/python3; do
    if command -v "$python" >/dev/null 2>&1; then exec "$python" -I -S "$0" "$@"; fi
done
echo "{name}: the simulated program needs Python 3, and there is none here" >&2
exit 127
":"""
'''


@functools.cache
def program(name: str) -> str:
    """The text of `nvidia-imex` or `nvidia-imex-ctl`."""
    start = _START.format(name=name, python=sys.executable)
    parts = [_body(Path(__file__).with_name(f"{module}.py")) for module in PROGRAMS[name]]
    return start + _FUTURE + "".join(parts) + "\n\nmain()\n"


def lay_out(directory: Path) -> None:
    """Write both into `directory`, executable."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        target = directory / name
        target.write_text(program(name), encoding="utf-8")
        target.chmod(0o755)


def _body(path: Path) -> str:
    """A module without what only holds inside of the package."""
    import ast

    text = path.read_text(encoding="utf-8")
    unwanted: set[int] = set()
    for node in ast.parse(text).body:
        if _is_unwanted(ast.unparse(node)):
            unwanted.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = text.splitlines(keepends=True)
    return "".join(line for number, line in enumerate(lines, start=1) if number not in unwanted)


def _is_unwanted(text: str) -> bool:
    """Imports of each other and from the future, docstrings, and `if __name__ == ...`."""
    inner_import = text.startswith(("from __future__ ", "from nvdra_sim."))
    return inner_import or text.startswith("if __name__ ") or text[0] in "'\""
