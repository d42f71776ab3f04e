"""Device nodes of IMEX, from the numbers that the driver tells in procfs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.hardware.device_nodes import listed_major
from nvdra_nodeagent.hardware.ports import DeviceNode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nvdra_nodeagent.hardware.device_nodes import HostDeviceNodes

CHANNELS_DRIVER: Final = "nvidia-caps-imex-channels"
CHANNELS_DIR: Final = f"/dev/{CHANNELS_DRIVER}"
MANAGEMENT: Final = "fabric-imex-mgmt"
_WORLD_READ_WRITE: Final = 0o666


class HostImexNodes:
    """Reads `<procfs>/devices`, or `proc_devices` in its place, and `<procfs>/driver/nvidia`.

    With a file in place of /proc/devices the driver's capabilities may be below the driver root.
    """

    def __init__(
        self,
        nodes: HostDeviceNodes,
        *,
        driver_root: Path,
        procfs: Path,
        proc_devices: Path | None = None,
    ) -> None:
        """`nodes` knows where the host has its devices."""
        self._proc_devices = proc_devices or procfs / "devices"
        self._roots = (driver_root / "proc", procfs) if proc_devices else (procfs,)
        self._nodes = nodes

    def channels(self, numbers: Sequence[int]) -> tuple[DeviceNode, ...]:
        major = listed_major(self._proc_devices, CHANNELS_DRIVER)
        return tuple(_channel(number, major=major) for number in numbers)

    def management(self) -> DeviceNode:
        places = [root / "driver" / "nvidia" / "capabilities" / MANAGEMENT for root in self._roots]
        file = next((place for place in places if place.exists()), places[-1])
        return self._nodes.cap(file, major=self._nodes.caps_major())


def _channel(number: int, *, major: int) -> DeviceNode:
    path = f"{CHANNELS_DIR}/channel{number}"
    return DeviceNode(path, path, major=major, minor=number, mode=_WORLD_READ_WRITE, gid=0)
