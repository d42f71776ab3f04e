"""What can go wrong between the agent and the machine, one class per decision a caller makes."""

from __future__ import annotations


class HardwareError(Exception):
    """A question to the machine got no answer."""


class NvmlError(HardwareError):
    """NVML answered a call with an error code.

    `code` is the `nvmlReturn_t` value, `call` the NVML function, `reason` the library's own text.
    """

    def __init__(self, call: str, *, code: int, reason: str) -> None:
        super().__init__(f"{call}: {reason} (NVML error {code})")
        self.call = call
        self.code = code
        self.reason = reason


class NotSupported(NvmlError):
    """This device or this driver does not know the question; the value is absent, not wrong."""


class NotFound(NvmlError):
    """The object asked for does not exist (any more)."""


class GpuLost(NvmlError):
    """The GPU fell off the bus; nothing about it can be asked until a reset."""


class DriverMissing(HardwareError):
    """A file of the NVIDIA driver is not where it was looked for.

    `name` is the file, `root` the directory searched, `tried` the places below it.
    """

    def __init__(self, name: str, *, root: str, tried: tuple[str, ...]) -> None:
        places = ", ".join(tried)
        super().__init__(
            f"{name} not found under driver root {root} (looked in {places}); "
            "install the NVIDIA driver on this node or point --nvidia-driver-root at it"
        )
        self.name = name
        self.root = root
        self.tried = tried
