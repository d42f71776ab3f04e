"""One stream of log lines for all programs: structlog and stdlib logging through one renderer.

Verbosity counts as the `-v` of Kubernetes programs, where charts pass 4 by default:
0 warnings and errors; 1 to 5 also what happens; from 6 on also why; from 7 on libraries as well.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias

import msgspec
import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_TRACES: Final = frozenset({"exc_info", "exception", "stack"})
_HEAD: Final = (("timestamp", None), ("level", "[{:9}]"), ("event", None), ("logger", "[{}]"))
_QUOTED: Final = frozenset(" \t\r\n='\"")

LogFormat: TypeAlias = Literal["text", "json"]


def configure(*, verbosity: int, format: LogFormat = "text", stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (standard error by default). May be called again."""
    target = stream or sys.stderr
    lines = _Lines(target)
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending = _ending(format, colors=target.isatty())
    structlog.configure(
        processors=[*common, _name_logger, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level_of(verbosity)),
        logger_factory=lines,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*common, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
    )
    _route_stdlib(lines, formatter, verbosity)


def level_of(verbosity: int) -> int:
    """The lowest level of our own lines that is shown."""
    if verbosity >= 6:
        return logging.DEBUG
    return logging.INFO if verbosity >= 1 else logging.WARNING


class _Lines:
    """Writes finished lines; the logger factory and the logger of structlog in one.

    A log that cannot be written (full disk, closed pipe) must not stop the program.
    """

    def __init__(self, stream: TextIO, name: str = "") -> None:
        self._stream = stream
        self.name = name

    def __call__(self, *args: Any) -> _Lines:
        return _Lines(self._stream, str(args[0]) if args else "")

    def msg(self, line: str) -> None:
        try:
            # One write per line, so that lines of several threads do not mix.
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = exception = fatal = warn = msg


class _Handler(logging.Handler):
    """Hands stdlib records to the same lines."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.msg(self.format(record))
        except Exception:
            self.handleError(record)


def _route_stdlib(lines: _Lines, formatter: logging.Formatter, verbosity: int) -> None:
    handler = _Handler(lines)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbosity >= 7 else logging.WARNING)
    logging.captureWarnings(True)


def _name_logger(logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    # Lines built before `configure` ran may come from a logger of another make.
    if name := getattr(logger, "name", ""):
        event["logger"] = name
    return event


def _ending(format: LogFormat, *, colors: bool) -> list[Processor]:
    if format == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("msg"),
            structlog.processors.JSONRenderer(serializer=_as_json),
        ]
    # Plain tracebacks: the pretty ones print local variables, and among them secrets.
    console = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )
    return [console if colors else _PlainText(console)]


class _PlainText:
    """What `ConsoleRenderer` writes without colours, at a quarter of the cost.

    Every claim is a line: what a line costs, each call of the kubelet waits for.
    """

    def __init__(self, console: structlog.dev.ConsoleRenderer) -> None:
        self._console = console

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        if not _TRACES.isdisjoint(event):
            return str(self._console(logger, method, event))
        head = [
            _in_one_line(event.pop(key)) if form is None else form.format(event.pop(key))
            for key, form in _HEAD
            if key in event
        ]
        pairs = [f"{key}={_shown(event[key])}" for key in sorted(event)]
        return " ".join(head + pairs).rstrip(" ")


def _in_one_line(text: Any) -> str:
    """Libraries put what others sent them into their messages."""
    text = str(text)
    return text if text.isprintable() else repr(text)


def _shown(value: Any) -> str:
    """Quoted where it could be taken for something else, or make a terminal do something."""
    is_plain = isinstance(value, str) and _QUOTED.isdisjoint(value) and value.isprintable()
    return value if is_plain else repr(value)


def _as_json(event: EventDict, **_: Any) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=str).decode()
    except (TypeError, ValueError):
        # File names may hold lone surrogates, which JSON can only say in escapes.
        return json.dumps(event, default=str, skipkeys=True)
