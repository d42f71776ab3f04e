"""Log lines on standard error: a constant event and its key-values, as text or as JSON.

The agents' logging libraries would cost more memory than all the rest of this program.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

DEBUG: Final = 10
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40

_NAMES: Final = {DEBUG: "debug", INFO: "info", WARNING: "warning", ERROR: "error"}
_QUOTED: Final = frozenset(" \t\r\n='\"")


def level_of(verbosity: int) -> int:
    """The lowest level shown: 0 only what is wrong, 1 to 5 what happens, from 6 on also why."""
    if verbosity >= 6:
        return DEBUG
    return INFO if verbosity >= 1 else WARNING


def write_to_stderr(line: str) -> None:
    """One write per line, so that lines of this program and of `nvidia-imex` do not mix.

    A log that cannot be written (full disk, closed pipe) must not stop the program.
    """
    with contextlib.suppress(OSError):
        os.write(2, line.encode("utf-8", "backslashreplace"))


class Log:
    """Writes events of at least `level` as lines in `form` (`text` or `json`)."""

    def __init__(
        self, level: int = INFO, *, form: str = "text", write: Callable[[str], None] | None = None
    ) -> None:
        self._level = level
        self._render = _as_json if form == "json" else _as_text
        self._write = write or write_to_stderr

    def debug(self, event: str, **fields: object) -> None:
        self._say(DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._say(INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._say(WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._say(ERROR, event, fields)

    def _say(self, level: int, event: str, fields: dict[str, object]) -> None:
        if level >= self._level:
            self._write(self._render(level, event, fields) + "\n")


def _timestamp() -> str:
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z"


def _as_text(level: int, event: str, fields: dict[str, object]) -> str:
    words = "".join(f" {key}={_quoted(value)}" for key, value in fields.items())
    return f"{_timestamp()} [{_NAMES[level]:9}] {event}{words}"


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or _QUOTED & set(text) else text


def _as_json(level: int, event: str, fields: dict[str, object]) -> str:
    line = {"timestamp": _timestamp(), "level": _NAMES[level], "msg": event, **fields}
    return json.dumps(line, default=str)
