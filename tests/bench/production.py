"""A Python as a production image has it: a program, what it needs, and nothing else.

Development environments hold optional packages that libraries pick up when they find them (rich,
colorama, kubernetes_asyncio), at a cost in time and memory that no node pays.
"""

from __future__ import annotations

import importlib.util
import os
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator

_COUNTING: Final = """
import os, sys

_log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
_fsync = os.fsync

def fsync(descriptor):
    os.write(_log, b"fsync ")
    _fsync(descriptor)

def hear(event, arguments):
    if event in ("os.rename", "os.remove"):
        os.write(_log, event.partition(".")[2].encode() + b" ")

os.fsync = fsync
sys.addaudithook(hear)
"""

OURS: Final = ("nvdra_api", "nvdra_kube", "nvdra_nodeagent", "nvdra_operator", "nvdra_sim")
_NOT_CODE: Final = ("..", "__pycache__")


def production_python(directory: Path, extra: str = "nodeagent") -> Path:
    """Make a virtual environment for `nvdra[EXTRA]` in `directory`; answers its interpreter.

    Nothing is downloaded: its packages are links to those of the running environment.
    """
    venv.create(directory, with_pip=False, symlinks=True)
    site = next(directory.glob("lib/python*/site-packages"))
    for package in OURS:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        (site / package).symlink_to(spec.submodule_search_locations[0])
    for found in _closure("nvdra", extra):
        _link(found, site)
    return directory / "bin" / "python"


def count_writes(python: Path) -> Path:
    """From now on programs of this interpreter tell of each durable operation on files, one word
    each; answers the file that has them."""
    log = python.parents[1] / "writes.log"
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    (site / "sitecustomize.py").write_text(_COUNTING.format(log=str(log)))
    log.touch()
    return log


def environ(**variables: str) -> dict[str, str]:
    """A container's environment: none of what steers Python in the caller's."""
    keep = {"PATH", "HOME", "TMPDIR", "LANG"}
    return {name: os.environ[name] for name in keep if name in os.environ} | variables


def _closure(name: str, *extras: str) -> list[Distribution]:
    """The distribution and all that it requires with these extras."""
    found: dict[str, Distribution] = {}
    wanted = [(name, extras)]
    while wanted:
        name, extras = wanted.pop()
        found[name] = distribution(name)
        wanted += [
            (requirement.name, tuple(requirement.extras))
            for requirement in _requirements(found[name], extras)
            if requirement.name not in found
        ]
    return list(found.values())


def _requirements(of: Distribution, extras: tuple[str, ...]) -> Iterator[Requirement]:
    for text in of.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": each}) for each in (*extras, "")):
            yield requirement


def _link(found: Distribution, site: Path) -> None:
    """Link each top-level file and folder of the distribution."""
    tops = {file.parts[0] for file in found.files or ()}
    for top in tops:
        source = Path(str(found.locate_file(top)))
        target = site / top
        # Links in `.pth` files would bring the whole environment along.
        if top in _NOT_CODE or source.suffix == ".pth" or target.exists() or not source.exists():
            continue
        target.symlink_to(source)
