"""Device nodes of a simulated machine under the host's /dev.

Containers in user namespaces get a device by a bind mount of the host's node, so it has to exist.
No driver stands behind the numbers: opening such a node fails.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_sim.hardware import identity
from nvdra_sim.hardware.devices import cap_path, node_table
from nvdra_sim.hardware.errors import SimulationError
from nvdra_sim.hardware.profile import Majors
from nvdra_sim.node.free_majors import LOCAL_MAJORS, free_majors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from nvdra_sim.hardware.machine import SimulatedHardware

log = structlog.get_logger(__name__)

_CAPS_MODE: Final = 0o444
_DRM: Final = "/dev/dri/"
_OURS: Final = frozenset({*LOCAL_MAJORS, *Majors().by_driver().values()})
# What the kernel's own list calls NVIDIA's devices, by any version of the driver.
_NVIDIA: Final = "nvidia"


class DeviceFiles:
    """`dev_root` is the host's /dev as this process sees it, `procfs` the kernel's view of drivers.

    DRM nodes are left out: their names belong to whatever real display the machine has.
    """

    def __init__(
        self, dev_root: Path, *, procfs: Path, make: Callable[[Path, int, int], None] = os.mknod
    ) -> None:
        self._root = dev_root
        self._procfs = procfs
        self._make = make

    def majors(self) -> Majors:
        """Numbers for simulated devices that are nobody's here.

        :raises SimulationError: a real NVIDIA driver is loaded here, or no numbers are free.
        """
        drivers = self._registered()
        real = (self._procfs / "driver" / "nvidia" / "version").exists()
        if real or any(name.startswith(_NVIDIA) for name in drivers.values()):
            raise SimulationError(
                "a real NVIDIA driver is loaded on this node, and nothing is simulated over it; "
                "keep the simulation off this node (kubeletPlugin.nodeSelector), or turn it off"
            )
        return free_majors(drivers)

    def make(self, hardware: SimulatedHardware) -> int:
        """Make what is missing, remove what another machine left; the number of changes."""
        wanted = {self._root / path.removeprefix("/dev/"): rest for path, *rest in _nodes(hardware)}
        changes = sum(self._remove(path) for path in self._present() if path not in wanted)
        for path, (major, minor, mode) in wanted.items():
            changes += self._ensure(path, os.makedev(major, minor), mode)
        return changes

    def _ensure(self, path: Path, device: int, mode: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == device:
                return False
            if not _is_ours(found):
                log.warning("left alone: not a device node of the simulation", path=str(path))
                return False
            path.unlink()
        path.parent.mkdir(exist_ok=True)
        self._make(path, stat.S_IFCHR | mode, device)
        path.chmod(mode)  # mknod obeys the umask
        return True

    def _remove(self, path: Path) -> bool:
        path.unlink(missing_ok=True)
        return True

    def _present(self) -> Iterable[Path]:
        """Device nodes here that have our numbers; without a driver nobody else made them."""
        candidates = [*self._root.glob("nvidia*"), *self._root.glob("nvidia-caps/nvidia-cap*")]
        for path in candidates:
            if _is_ours(path.lstat()):
                yield path

    def _registered(self) -> dict[int, str]:
        """Character device drivers of the running kernel by major number."""
        text = (self._procfs / "devices").read_text(encoding="utf-8")
        characters = text.partition("Block devices:")[0].splitlines()[1:]
        pairs = (line.split(maxsplit=1) for line in characters if line.strip())
        return {int(major): name for major, name in pairs}


def _is_ours(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in _OURS


def _nodes(hardware: SimulatedHardware) -> Iterable[tuple[str, int, int, int]]:
    """Path, major, minor and mode of each NVIDIA node of the machine."""
    for path, (major, minor, mode, _) in node_table(hardware.profile).items():
        if not path.startswith(_DRM):
            yield path, major, minor, mode
    state, caps = hardware.state(), hardware.profile.majors.nvidia_caps
    for slot, gpu in zip(hardware.profile.gpus, state.gpus, strict=True):
        for each in gpu.instances:
            for minor in (
                identity.gi_cap(slot.minor, each.gi_id),
                identity.ci_cap(slot.minor, each.gi_id, each.ci_id),
            ):
                yield cap_path(minor), caps, minor, _CAPS_MODE
