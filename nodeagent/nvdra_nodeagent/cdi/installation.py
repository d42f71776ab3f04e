"""Tells a driver whose files are still being put there from one that is complete.

Installers copy files one after the other. A document made in between would name a part of the
driver, and its container would fail in a way that says nothing of the cause.
"""

from __future__ import annotations

import posixpath
import time
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.errors import Retryable

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_nodeagent.cdi.driver_files import DirectoryState, DriverFiles

SETTLED_S: Final = 10.0
"""After so long without a change the files are taken as they are: drivers drop libraries, too."""

_SHOWN: Final = 3


class Installation:
    """Compares what is found with what was there before. Safe for several threads."""

    def __init__(
        self, *, settled_s: float = SETTLED_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settled_s = settled_s
        self._clock = clock
        self._seen: tuple[tuple[tuple[str, DirectoryState], ...], float] | None = None

    def check(self, found: DriverFiles, *, before: DriverFiles | None) -> None:
        """:raises Retryable: `DriverChanging`: libraries are missing that were there before, and
        the directories have changed a moment ago."""
        missing = _libraries(before) - _libraries(found) if before else frozenset()
        if not missing:
            self._seen = None
            return
        seen = self._seen  # another thread may take it away meanwhile
        if seen is None or seen[0] != found.searched:
            seen = self._seen = (found.searched, self._clock())
        if self._clock() - seen[1] < self._settled_s:
            shown = ", ".join(sorted(missing)[:_SHOWN])
            raise Retryable(
                "DriverChanging",
                f"the NVIDIA driver's files are being replaced: of {len(missing)} libraries that "
                f"were there before nothing is to be seen yet ({shown})",
                hint="wait until the driver's installation is complete",
            )


def _libraries(files: DriverFiles) -> frozenset[str]:
    """Their names without versions."""
    names = (posixpath.basename(file.root_path) for file in files.libraries)
    return frozenset(name.partition(".so")[0] for name in names)
