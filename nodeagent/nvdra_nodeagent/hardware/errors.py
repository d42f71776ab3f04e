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


class SessionLost(NvmlError):
    """The library has to be initialised again: the driver went, came back or was replaced."""


class DriverMissing(HardwareError):
    """A file of the NVIDIA driver is not where it was looked for.

    `name` is the file, `root` the directory searched, `tried` the places below it.
    """

    def __init__(self, name: str, *, root: str, tried: tuple[str, ...]) -> None:
        super().__init__(self._describe(name, root=root, tried=tried))
        self.name = name
        self.root = root
        self.tried = tried

    def _describe(self, name: str, *, root: str, tried: tuple[str, ...]) -> str:
        return (
            f"{name} not found under driver root {root} (looked in {', '.join(tried)}); "
            "install the NVIDIA driver on this node or point --nvidia-driver-root at it"
        )


class LibraryUnusable(DriverMissing):
    """The file is there, but the dynamic linker refuses it; `cause` is the linker's own text."""

    def __init__(self, path: str, *, cause: str) -> None:
        self.cause = cause
        super().__init__(path, root="", tried=(path,))

    def _describe(self, name: str, *, root: str, tried: tuple[str, ...]) -> str:
        return (
            f"{name} cannot be loaded: {self.cause}; the driver under the driver root has to match "
            "this machine's processor and C library"
        )


class ProgramFailed(HardwareError):
    """A program of the driver ended with a failure; `output` is what it wrote."""

    def __init__(self, command: str, *, outcome: str, output: str) -> None:
        said = f": {output}" if output else ", and wrote nothing"
        super().__init__(f"`{command}` {outcome}{said}")
        self.command = command
        self.output = output


class ProgramTimedOut(ProgramFailed):
    """The program did not end in time and was killed."""

    def __init__(self, command: str, *, after_s: float, output: str) -> None:
        outcome = f"did not end within {after_s:g} s and was stopped"
        super().__init__(command, outcome=outcome, output=output)


class HookMissing(DriverMissing):
    """The program that CDI hooks would name cannot be used.

    `name` is the path the hook was wanted at, `tried` the places it was looked for.
    """

    def __init__(self, path: str, *, source: str, cause: str) -> None:
        self.cause = cause
        super().__init__(path, root="", tried=(source,))

    def _describe(self, name: str, *, root: str, tried: tuple[str, ...]) -> str:
        return (
            f"CDI hook {name} cannot be provided from {tried[0]}: {self.cause}; "
            "put nvidia-cdi-hook there or name one on the host with --nvidia-cdi-hook-path"
        )
