"""Device nodes and PCI functions of a simulated machine.

Nodes are placeholder files, because making real ones needs privileges; their numbers come from
here. Everything that the real adapters can read from the laid out files, they do read.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.hardware.device_nodes import HostDeviceNodes
from nvdra_nodeagent.hardware.pci import SysfsPci, normalise_bus_id
from nvdra_nodeagent.hardware.ports import DeviceNode
from nvdra_sim.hardware import identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nvdra_sim.hardware.board import Board
    from nvdra_sim.hardware.profile import Profile

CAPS_DIR: Final = "/dev/nvidia-caps"

_ALL: Final = 0o666
_GROUP: Final = 0o660
_ROOT_GID, _VIDEO_GID, _RENDER_GID = 0, 44, 105
_FIRST_RENDER_MINOR: Final = 128

Numbers = tuple[int, int, int, int]


def drm_names(position: int) -> tuple[str, str]:
    """DRM nodes of the GPU at this position in PCI order; card0 is the server's own display."""
    return f"card{position + 1}", f"renderD{_FIRST_RENDER_MINOR + position}"


def node_table(profile: Profile) -> dict[str, Numbers]:
    """Major, minor, mode and group of every node but those of MIG devices, by path."""
    return dict(_nodes(profile))


def cap_path(minor: int) -> str:
    return f"{CAPS_DIR}/nvidia-cap{minor}"


def _nodes(profile: Profile) -> Iterator[tuple[str, Numbers]]:
    majors = profile.majors
    nvidia, drm, uvm, caps = majors.nvidia, majors.drm, majors.nvidia_uvm, majors.nvidia_caps
    yield "/dev/nvidiactl", (nvidia, 255, _ALL, _ROOT_GID)
    yield "/dev/nvidia-modeset", (nvidia, 254, _ALL, _ROOT_GID)
    yield "/dev/nvidia-uvm", (uvm, 0, _ALL, _ROOT_GID)
    yield "/dev/nvidia-uvm-tools", (uvm, 1, _ALL, _ROOT_GID)
    if profile.mig is not None:
        yield cap_path(identity.MIG_CONFIG_CAP), (caps, identity.MIG_CONFIG_CAP, 0o400, _ROOT_GID)
        yield cap_path(identity.MIG_MONITOR_CAP), (caps, identity.MIG_MONITOR_CAP, 0o444, _ROOT_GID)
    for position, gpu in enumerate(profile.gpus):
        yield f"/dev/nvidia{gpu.minor}", (nvidia, gpu.minor, _ALL, _ROOT_GID)
        card, render = drm_names(position)
        yield f"/dev/dri/{card}", (drm, position + 1, _GROUP, _VIDEO_GID)
        yield f"/dev/dri/{render}", (drm, _FIRST_RENDER_MINOR + position, _GROUP, _RENDER_GID)


class SimulatedDeviceNodes:
    """Nodes below `<driver root>/dev`. A node whose placeholder was removed is not there."""

    def __init__(self, board: Board, *, driver_root: Path, procfs: Path) -> None:
        self._root = str(driver_root).rstrip("/")
        self._table = node_table(board.profile)
        self._caps_major = board.profile.majors.nvidia_caps
        self._real = HostDeviceNodes(driver_root, host_dev_root=driver_root, procfs=procfs)

    def stat(self, path: str) -> DeviceNode | None:
        placeholder = f"{self._root}/{path.lstrip('/')}"
        numbers = self._numbers(path)
        # A Path would cost as much as all else: the agent's time is measured on simulated machines.
        if numbers is None or not os.path.isfile(placeholder):  # noqa: PTH113
            return None
        major, minor, mode, gid = numbers
        return DeviceNode(path, placeholder, major=major, minor=minor, mode=mode, gid=gid)

    def mig_caps(self, gpu_minor: int, gi_id: int, ci_id: int) -> tuple[DeviceNode, ...]:
        return self._real.mig_caps(gpu_minor, gi_id, ci_id)

    def _numbers(self, path: str) -> Numbers | None:
        if (known := self._table.get(path)) is not None:
            return known
        minor = path.removeprefix(cap_path(0)[:-1])
        if minor == path or not minor.isdecimal():
            return None
        return (self._caps_major, int(minor), 0o444, _ROOT_GID)


class SimulatedPci:
    """The laid out sysfs, with faults."""

    def __init__(self, board: Board, *, sysfs: Path) -> None:
        self._board = board
        self._real = SysfsPci(sysfs)

    def numa_node(self, bus_id: str) -> int | None:
        self._play_faults("numa_node", bus_id)
        return self._real.numa_node(bus_id)

    def root_complex(self, bus_id: str) -> str | None:
        self._play_faults("root_complex", bus_id)
        return self._real.root_complex(bus_id)

    def drm_nodes(self, bus_id: str) -> tuple[str, ...]:
        self._play_faults("drm_nodes", bus_id)
        return self._real.drm_nodes(bus_id)

    def _play_faults(self, call: str, bus_id: str) -> None:
        self._board.play_faults(call, gpu=self._board.index_of(bus_id))


class SimulatedDriverModule:
    """The kernel module as the state has it."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def load(self) -> str:
        driver = self._board.state().driver
        return str(driver.load) if driver.loaded else ""

    def gpus(self) -> tuple[str, ...]:
        state = self._board.state()
        if not state.driver.loaded:
            return ()
        return tuple(
            normalise_bus_id(slot.bus_id)
            for slot, gpu in zip(self._board.profile.gpus, state.gpus, strict=True)
            if not gpu.absent
        )
