"""The simulated machine in a directory of the host: kept while the wish stays, else made anew.

<directory>/profile.json   the hardware, for the agent's --simulate
<directory>/machine/       its files, for --simulate-state
<directory>/wish           what it was made for
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from nvdra_nodeagent.durable import write_durably
from nvdra_sim.hardware.errors import UnusableStateDir
from nvdra_sim.hardware.layout import read_layout
from nvdra_sim.hardware.machine import SimulatedHardware
from nvdra_sim.hardware.profile import load_profile
from nvdra_sim.hardware.tree import HOOK

if TYPE_CHECKING:
    from pathlib import Path

    from nvdra_sim.hardware.profile import Majors, Profile
    from nvdra_sim.node.wish import Wish

log = structlog.get_logger(__name__)

PROFILE: Final = "profile.json"
MACHINE: Final = "machine"
_WISH: Final = "wish"


@dataclass(frozen=True, slots=True)
class Furnished:
    """The machine; `is_new` when it was not there before or was another."""

    hardware: SimulatedHardware
    is_new: bool


def furnish(
    directory: Path,
    wish: Wish,
    *,
    node: str,
    hook: Path | None = None,
    majors: Majors | None = None,
) -> Furnished:
    """Lay the wished machine out in `directory`.

    `hook`, where that program exists, takes the place of the stand-in that the simulator brings:
    container runtimes of a real cluster really run it. `majors` are the numbers of its devices,
    where others than the profile's are wanted.

    :raises SimulationError: unknown profile, impossible layout, unusable directory.
    """
    profile = load_profile(wish.profile)
    if majors is not None:
        profile = msgspec.structs.replace(profile, majors=majors)
    key = _key(profile, wish, node=node)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        is_new = _clear_other(directory, key)
        write_durably(directory / PROFILE, msgspec.json.encode(profile))
        load_profile.cache_clear()  # one name for another content
        hardware = SimulatedHardware.open(
            str(directory / PROFILE), directory / MACHINE, node=node, mig_layout=wish.mig_layout
        )
        _put_hook(hook, directory / MACHINE / HOOK)
        write_durably(directory / _WISH, key)
    except OSError as error:
        raise UnusableStateDir(directory, f"{error}; choose a writable directory") from error
    return Furnished(hardware, is_new)


def furnished_before(directory: Path) -> SimulatedHardware | None:
    """The machine that an earlier start left, if it was finished."""
    if not (directory / _WISH).is_file():
        return None
    return SimulatedHardware.attach(directory / MACHINE)


def _clear_other(directory: Path, key: bytes) -> bool:
    """Remove a machine that was made for another wish; whether there is none now."""
    machine, wish = directory / MACHINE, directory / _WISH
    if not machine.exists():
        return True
    if wish.is_file() and wish.read_bytes() == key:
        return False
    log.warning("removing the machine that was simulated here before", directory=str(machine))
    wish.unlink(missing_ok=True)
    shutil.rmtree(machine)
    return True


def _key(profile: Profile, wish: Wish, *, node: str) -> bytes:
    """Changes when this node's hardware would; not when only another node's layout does."""
    layout = repr(read_layout(wish.mig_layout, profile)) if wish.mig_layout else ""
    content = b"\0".join([msgspec.json.encode(profile), layout.encode(), node.encode()])
    return hashlib.sha256(content).hexdigest().encode()


def _put_hook(hook: Path | None, target: Path) -> None:
    if hook is None or not os.access(hook, os.X_OK):
        return
    content = hook.read_bytes()
    if target.read_bytes() != content:
        write_durably(target, content, mode=0o755)
