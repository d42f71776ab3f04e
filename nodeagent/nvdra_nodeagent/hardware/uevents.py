"""Kernel messages about GPUs that come and go, and about the driver's module (netlink, uevents)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_KOBJECT_UEVENT: Final = 15  # NETLINK_KOBJECT_UEVENT
_KERNEL_GROUP: Final = 1
_MESSAGE_BYTES: Final = 8192
_NVIDIA: Final = "10DE:"
_DISPLAY_CLASS: Final = "3"  # PCI base class 03 as uevents print it: 30000, 30200


class UeventAnnouncer:
    """An `Announcer` that hears the kernel. Containers on the host's user namespace hear it too."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def open(self) -> int | None:
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        found: socket.socket | None = None
        try:
            found = socket.socket(socket.AF_NETLINK, flags, _KOBJECT_UEVENT)
            found.bind((0, _KERNEL_GROUP))
        except OSError as error:
            if found is not None:
                found.close()
            log.info("kernel events are not to be had; looking at intervals", cause=str(error))
            return None
        self._socket = found
        return found.fileno()

    def arm(self) -> None: ...

    def news(self) -> tuple[str, ...]:
        found: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while self._socket is not None:
                found += self._receive(self._socket)
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _fall_silent(self, source: socket.socket) -> None:
        """The loop goes on watching the descriptor: its number must not pass to another file."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as quiet:
            quiet.setblocking(False)
            os.dup2(quiet.fileno(), source.fileno(), inheritable=False)

    def _receive(self, source: socket.socket) -> list[str]:
        try:
            message, (sender, _) = source.recvfrom(_MESSAGE_BYTES)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return ["kernel events were missed"]
            self._fall_silent(source)
            log.warning("kernel events ended; looking at intervals", cause=str(error))
            return []
        # Anybody may send here; only the kernel's own port is 0.
        what = meaning(message) if sender == 0 else ""
        return [what] if what else []


def meaning(message: bytes) -> str:
    """What a uevent says about GPUs or their driver, e.g. "remove 0000:65:00.0"; "" if nothing."""
    lines = message.decode("utf-8", errors="replace").split("\0")
    fields = dict(line.partition("=")[::2] for line in lines if "=" in line)
    action, path = fields.get("ACTION", ""), fields.get("DEVPATH", "")
    name = path.rpartition("/")[2]
    match fields.get("SUBSYSTEM"):
        case "pci" if _is_gpu(fields):
            return f"{action} {name}"
        case "module" if name == "nvidia" or name.startswith("nvidia_"):
            return f"{action} module {name}"
    return ""


def _is_gpu(fields: dict[str, str]) -> bool:
    if fields.get("DRIVER") == "nvidia":
        return True
    pci_class = fields.get("PCI_CLASS", "")
    is_display = len(pci_class) == len("30200") and pci_class.startswith(_DISPLAY_CLASS)
    return is_display and fields.get("PCI_ID", "").upper().startswith(_NVIDIA)
