"""Character devices below a device root, and the capability nodes of MIG devices from procfs."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from nvdra_nodeagent.hardware.errors import HardwareError
from nvdra_nodeagent.hardware.ports import DeviceNode

_CAPS_DRIVER: Final = "nvidia-caps"
_CAPS_DIR: Final = "/dev/nvidia-caps"
_FIELD: Final = re.compile(r"^\s*(DeviceFile\w+)\s*:\s*(\d+)\s*$", re.MULTILINE)


class HostDeviceNodes:
    """`dev_root` is where this process sees the devices, `host_dev_root` where the host has them.

    While `dev_root` has no `dev` directory, devices are those below `own_root`, which the host
    knows as `/`: a driver container may bring its root, and devices with it, after we started.
    `proc_devices` replaces `<procfs>/devices` (its alternative is a documented setting).
    """

    def __init__(
        self,
        dev_root: Path,
        *,
        host_dev_root: Path,
        procfs: Path,
        proc_devices: Path | None = None,
        own_root: Path | None = None,
    ) -> None:
        self._dev_root = dev_root
        self._host_dev_root = host_dev_root
        self._own_root = own_root
        self._capabilities = procfs / "driver" / "nvidia" / "capabilities"
        self._proc_devices = proc_devices or procfs / "devices"

    def stat(self, path: str) -> DeviceNode | None:
        root, host_root = self._roots()
        file = _below(root, path)
        try:
            status = os.stat(file)  # noqa: PTH116 - on the claim path, where a Path costs more
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HardwareError(f"cannot examine the device node {file}: {error}") from error
        if not stat.S_ISCHR(status.st_mode):
            return None
        return DeviceNode(
            path=path,
            host_path=_below(host_root, path),
            major=os.major(status.st_rdev),
            minor=os.minor(status.st_rdev),
            mode=stat.S_IMODE(status.st_mode),
            gid=status.st_gid,
        )

    def mig_caps(self, gpu_minor: int, gi_id: int, ci_id: int) -> tuple[DeviceNode, ...]:
        major = self.caps_major()
        instance = self._capabilities / f"gpu{gpu_minor}" / "mig" / f"gi{gi_id}"
        files = (instance / "access", instance / f"ci{ci_id}" / "access")
        return tuple(self.cap(file, major=major) for file in files)

    def cap(self, file: Path, *, major: int) -> DeviceNode:
        """The node that a file below `/proc/driver/nvidia/capabilities` describes."""
        fields = dict(_FIELD.findall(_read(file)))
        try:
            minor, mode = int(fields["DeviceFileMinor"]), int(fields["DeviceFileMode"])
        except KeyError as error:
            raise HardwareError(f"{file} has no line {error.args[0]}: <number>") from error
        # The node need not exist on the host: container runtimes create it from these numbers.
        path = f"{_CAPS_DIR}/nvidia-cap{minor}"
        _, host_root = self._roots()
        host_path = _below(host_root, path)
        return DeviceNode(path, host_path, major=major, minor=minor, mode=mode, gid=0)

    def caps_major(self) -> int:
        """Major number of all capability nodes."""
        return listed_major(self._proc_devices, _CAPS_DRIVER)

    def _roots(self) -> tuple[Path, Path]:
        """Where the devices are now, for us and for the host."""
        if self._own_root is None or (self._dev_root / "dev").is_dir():
            return self._dev_root, self._host_dev_root
        return self._own_root, Path("/")


def character_major(proc_devices: str, driver: str) -> int | None:
    """The major number of `driver` in the text of /proc/devices; block devices do not count."""
    in_section = False
    for line in proc_devices.splitlines():
        if line.rstrip().endswith(":"):
            in_section = line.startswith("Character")
            continue
        number, _, name = line.strip().partition(" ")
        if in_section and name.strip() == driver and number.isdecimal():
            return int(number)
    return None


def listed_major(proc_devices: Path, driver: str) -> int:
    """The major number of `driver` in that file. Raises `HardwareError` where it has none."""
    major = character_major(_read(proc_devices), driver)
    if major is None:
        raise HardwareError(
            f"{proc_devices} lists no character device {driver}; "
            "load the nvidia kernel module or correct ALT_PROC_DEVICES_PATH"
        )
    return major


def _below(root: Path, path: str) -> str:
    return f"{str(root).rstrip('/')}/{path.lstrip('/')}"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise HardwareError(f"cannot read {file}: {error}") from error
