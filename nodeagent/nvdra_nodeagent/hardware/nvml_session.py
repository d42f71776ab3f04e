"""Which NVML library is loaded, and for how long what came out of it may be used.

A handle is an address inside the library that gave it. Used after that library was shut down, or
with another one, it crashes the process. So every call goes through the session that it began in:
an ended session refuses, and a session only ends when no call is inside the library any more.

A library that was replaced on disk stays mapped beside the new one: unmapping code is never safe,
and a driver is replaced too rarely for the few megabytes to matter.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pynvml

from nvdra_nodeagent.hardware.errors import (
    GpuLost,
    LibraryUnusable,
    NotFound,
    NotSupported,
    NvmlError,
    SessionLost,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLASSES: Final[dict[int, type[NvmlError]]] = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: NotSupported,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: NotSupported,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH: NotSupported,
    pynvml.NVML_ERROR_DEPRECATED: NotSupported,
    pynvml.NVML_ERROR_NOT_FOUND: NotFound,
    pynvml.NVML_ERROR_GPU_NOT_FOUND: NotFound,
    pynvml.NVML_ERROR_GPU_IS_LOST: GpuLost,
    pynvml.NVML_ERROR_UNINITIALIZED: SessionLost,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: SessionLost,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: SessionLost,
}

FileIdentity: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size and time of change of a file."""


def ask(call: str, *arguments: Any) -> Any:
    """Call the binding's function of that name, errors translated."""
    function = getattr(pynvml, call, None)
    if function is None:
        code = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
        raise NotSupported(call, code=code, reason="the NVML binding does not know this function")
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        raise _CLASSES.get(error.value, NvmlError)(
            call, code=error.value, reason=str(error)
        ) from error
    except UnicodeDecodeError as error:
        code = pynvml.NVML_ERROR_UNKNOWN
        raise NvmlError(call, code=code, reason=f"answer is not text: {error.object!r}") from error


def ended(call: str) -> SessionLost:
    """The error of a call outside of any session."""
    return SessionLost(call, code=pynvml.NVML_ERROR_UNINITIALIZED, reason="Uninitialized")


class Session:
    """The calls between one initialisation of the library and its end. Safe for any thread."""

    def __init__(self) -> None:
        self._idle = threading.Condition()
        self._calls = 0
        self._ended = False
        self.is_lost = False

    def ask(self, call: str, *arguments: Any) -> Any:
        with self._idle:
            if self._ended:
                raise ended(call)
            self._calls += 1
        try:
            return ask(call, *arguments)
        except SessionLost:
            self.is_lost = True
            raise
        finally:
            with self._idle:
                self._calls -= 1
                self._idle.notify_all()

    def end(self, *, patience_s: float) -> bool:
        """Refuse calls from now on; False when some that are running do not return."""
        with self._idle:
            self._ended = self.is_lost = True
            return self._idle.wait_for(lambda: not self._calls, patience_s)


@dataclass(frozen=True, slots=True)
class LoadedLibrary:
    """A library file as it was when it was loaded."""

    path: Path
    identity: FileIdentity | None

    @property
    def is_current(self) -> bool:
        """Whether the same file is still there."""
        return self.identity == _identity(self.path)


class _Spellings:
    """The dynamic linker answers a name that it knows with the library that had it first, whatever
    is there now. A replaced file is therefore asked for by another spelling of its path."""

    def __init__(self) -> None:
        self._known: dict[str, FileIdentity | None] = {}

    def of(self, path: Path, identity: FileIdentity | None) -> str:
        for spelling in self._all(path):
            if self._known.setdefault(spelling, identity) == identity:
                return spelling
        raise AssertionError("there is always a longer spelling")

    def _all(self, path: Path) -> Iterator[str]:
        dots = ""
        while True:
            yield f"{path.parent}{dots}/{path.name}"
            dots += "/."


_spellings = _Spellings()


def load(path: Path) -> LoadedLibrary:
    """Make the binding use this file; by itself it asks the dynamic linker for a bare name."""
    identity = _identity(path)
    try:
        library = ctypes.CDLL(_spellings.of(path, identity))
    except OSError as error:
        raise LibraryUnusable(str(path), cause=str(error)) from error
    with pynvml.libLoadLock:
        if pynvml.nvmlLib is None or pynvml.nvmlLib._handle != library._handle:
            pynvml.nvmlLib = library
            pynvml._nvmlGetFunctionPointer_cache.clear()
    return LoadedLibrary(path, identity)


def _identity(path: Path) -> FileIdentity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
