"""Builds the stub of NVIDIA's library and pulls its strings."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LIBRARY: Final = "libnvidia-ml.so.1"
# The binding calls these functions by newer names than it has itself.
_SYMBOLS: Final = {
    "nvmlDeviceGetCount": "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex": "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetPciInfo": "nvmlDeviceGetPciInfo_v3",
}

compiler = shutil.which("cc") or shutil.which("gcc")


@dataclass(frozen=True, slots=True)
class NvmlStub:
    """A driver root that holds nothing but the stub."""

    driver_root: Path

    @property
    def path(self) -> Path:
        return self.driver_root / "usr/lib64" / LIBRARY

    @property
    def _library(self) -> Any:
        # The dynamic linker gives the same copy to all who open the same file.
        return ctypes.CDLL(str(self.path))

    def fail(self, call: str, code: int, *, after: int = 0) -> None:
        """Let a call of the binding answer with an error code."""
        self._library.stub_fail(_SYMBOLS.get(call, call).encode(), code, after)

    def hold(self, call: str) -> None:
        """Let a call of the binding not return before `reset`."""
        self._library.stub_hold(_SYMBOLS.get(call, call).encode())

    @property
    def is_held(self) -> bool:
        """Whether a caller is in the call that does not return."""
        return bool(self._library.stub_inside())

    def reset(self) -> None:
        self._library.stub_reset()

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        return tuple(f"GPU-11111111-2222-3333-4444-00000000000{index}" for index in range(2))

    def rename(self, product: bytes) -> None:
        self._library.stub_product(product)

    @property
    def initialised(self) -> int:
        """How many more inits than shutdowns there were."""
        return int(self._library.stub_initialised())

    @property
    def init_flags(self) -> int:
        return int(self._library.stub_flags())


def build_stub(
    source: Path, driver_root: Path, *, options: Sequence[str] = (), without: str = ""
) -> NvmlStub:
    """Compile the stub into `driver_root`, as by a driver that lacks the call `without`."""
    assert compiler is not None, "the caller skips without a compiler"
    stub = NvmlStub(driver_root)
    stub.path.parent.mkdir(parents=True)
    if without:
        script = driver_root / "symbols"
        script.write_text(f"{{ local: {_SYMBOLS.get(without, without)}; }};\n")
        options = [*options, f"-Wl,--version-script={script}"]
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *options]
    subprocess.run([compiler, *flags, "-o", str(stub.path), str(source)], check=True, timeout=60)
    return stub
