"""What sysfs knows of PCI functions, and how their addresses are written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.hardware.errors import HardwareError

if TYPE_CHECKING:
    from pathlib import Path

_BUS_ID: Final = re.compile(
    r"(?P<domain>[0-9a-f]{4,8}):(?P<bus>[0-9a-f]{2}):(?P<device>[0-9a-f]{2})\.(?P<function>[0-7])"
)
_ROOT_COMPLEX: Final = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")


def normalise_bus_id(bus_id: str) -> str:
    """The address as sysfs writes it: lower case, at least four digits of domain.

    NVML writes eight (`00000000:65:00.0`). Raises `ValueError` for anything else.
    """
    match = _BUS_ID.fullmatch(bus_id.strip().lower())
    if match is None:
        raise ValueError(f"{bus_id!r} is no PCI address (expected like 0000:65:00.0)")
    domain = int(match["domain"], 16)
    return f"{domain:04x}:{match['bus']}:{match['device']}.{match['function']}"


def bus_id_order(bus_id: str) -> tuple[int, ...]:
    """A sort key that follows the bus, also across domains of different width."""
    return tuple(int(part, 16) for part in re.split(r"[:.]", normalise_bus_id(bus_id)))


class SysfsPci:
    """Reads `<sysfs>/bus/pci/devices`."""

    def __init__(self, sysfs: Path) -> None:
        self._devices = sysfs / "bus" / "pci" / "devices"

    def numa_node(self, bus_id: str) -> int | None:
        file = self._function(bus_id) / "numa_node"
        try:
            node = int(file.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None  # a kernel built without NUMA has no such file
        except (OSError, ValueError) as error:
            raise HardwareError(f"cannot read the NUMA node from {file}: {error}") from error
        return node if node >= 0 else None

    def root_complex(self, bus_id: str) -> str | None:
        link = self._function(bus_id)
        try:
            target = link.readlink()
        except OSError as error:
            raise HardwareError(f"cannot read the link {link}: {error}") from error
        return next((part for part in target.parts if _ROOT_COMPLEX.fullmatch(part)), None)

    def drm_nodes(self, bus_id: str) -> tuple[str, ...]:
        directory = self._function(bus_id) / "drm"
        try:
            return tuple(sorted(entry.name for entry in directory.iterdir()))
        except FileNotFoundError:
            return ()  # no display driver is loaded for it
        except OSError as error:
            raise HardwareError(f"cannot list {directory}: {error}") from error

    def _function(self, bus_id: str) -> Path:
        path = self._devices / bus_id
        # lstat: the link alone proves that the function exists.
        try:
            path.lstat()
        except OSError as error:
            raise HardwareError(f"no PCI function at {path}: {error}") from error
        return path
