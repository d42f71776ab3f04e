"""One stream for structlog and stdlib logging, as text or JSON lines."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from nvdra_kube.logs import LogFormat, _PlainText, configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def logs() -> Iterator[Callable[..., io.StringIO]]:
    """Configures, and puts everything back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def configured(verbosity: int, format: LogFormat = "json") -> io.StringIO:
        stream = io.StringIO()
        configure(verbosity=verbosity, format=format, stream=stream)
        return stream

    yield configured
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def parsed(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object(logs: Callable[..., io.StringIO]) -> None:
    stream = logs(4)
    structlog.get_logger("nvdra_x").info("claim prepared", claim="u", devices=2)
    [line] = parsed(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "msg": "claim prepared",
        "level": "info",
        "logger": "nvdra_x",
        "claim": "u",
        "devices": 2,
    }


def test_a_line_may_be_text(logs: Callable[..., io.StringIO]) -> None:
    stream = logs(4, "text")
    structlog.get_logger("nvdra_x").warning("token not readable", path="/t")
    assert "[warning  ] token not readable [nvdra_x] path=/t\n" in stream.getvalue()


PRINTABLE = st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" '=")


@given(
    event=st.text(PRINTABLE, min_size=1),
    level=st.sampled_from(["debug", "info", "warning", "error", "critical"]),
    pairs=st.dictionaries(
        st.sampled_from(["logger", "claim", "zone", "a"]),
        st.text(PRINTABLE) | st.integers() | st.none() | st.lists(st.text()),
    ),
)
def test_plain_text_is_what_structlog_would_write(
    event: str, level: str, pairs: dict[str, Any]
) -> None:
    console = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    line = {"timestamp": "2026-01-01T00:00:00Z", "level": level, "event": event, **pairs}
    assert _PlainText(console)(None, level, {**line}) == console(None, level, {**line})


@given(event=st.text(min_size=1), value=st.text())
def test_plain_text_is_one_line_without_orders_to_a_terminal(event: str, value: str) -> None:
    console = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    assert _PlainText(console)(None, "info", {"event": event, "x": value}).isprintable()


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [(0, ["w"]), (1, ["i", "w"]), (4, ["i", "w"]), (6, ["d", "i", "w"]), (9, ["d", "i", "w"])],
)
def test_verbosity_chooses_the_level(
    logs: Callable[..., io.StringIO], verbosity: int, shown: list[str]
) -> None:
    stream = logs(verbosity)
    log = structlog.get_logger("nvdra_x")
    log.debug("d")
    log.info("i")
    log.warning("w")
    assert [line["msg"] for line in parsed(stream)] == shown


@pytest.mark.parametrize(("verbosity", "shown"), [(6, ["w 1"]), (7, ["i", "w 1"])])
def test_libraries_talk_only_at_high_verbosity(
    logs: Callable[..., io.StringIO], verbosity: int, shown: list[str]
) -> None:
    stream = logs(verbosity)
    library = logging.getLogger("some.library")
    library.info("i")
    library.warning("w %d", 1)
    assert [line["msg"] for line in parsed(stream)] == shown


def test_stdlib_lines_have_the_same_form(logs: Callable[..., io.StringIO]) -> None:
    stream = logs(4)
    logging.getLogger("some.library").warning("slow")
    [line] = parsed(stream)
    assert (line["logger"], line["level"], line["msg"]) == ("some.library", "warning", "slow")
    assert line.keys() == {"timestamp", "logger", "level", "msg"}


@pytest.mark.parametrize("format", ["text", "json"])
def test_tracebacks_are_kept_without_local_variables(
    logs: Callable[..., io.StringIO], format: LogFormat
) -> None:
    stream = logs(4, format)
    secret = "t0k" + "en"
    try:
        raise ValueError("bad claim")
    except ValueError as error:
        structlog.get_logger("nvdra_x").error("failed", exc_info=error)
        logging.getLogger("some.library").exception("failed")
    assert stream.getvalue().count("ValueError: bad claim") == 2
    assert secret not in stream.getvalue()


def test_what_is_bound_is_on_every_line(logs: Callable[..., io.StringIO]) -> None:
    stream = logs(4)
    with structlog.contextvars.bound_contextvars(claim="u"):
        structlog.get_logger("nvdra_x").info("a")
        logging.getLogger("some.library").warning("b")
    assert [line["claim"] for line in parsed(stream)] == ["u", "u"]


def test_loggers_made_before_are_configured_too(logs: Callable[..., io.StringIO]) -> None:
    log = structlog.get_logger("nvdra_x")
    first = logs(4)
    log.info("a")
    second = logs(4)
    log.info("b")
    logging.getLogger("some.library").warning("c")
    assert [line["msg"] for line in parsed(first)] == ["a"]
    assert [line["msg"] for line in parsed(second)] == ["b", "c"]


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("value", [object(), {1: 2}, b"\xff", "\udcff", {("a",): 1}, {1, 2}])
def test_any_value_can_be_logged(
    logs: Callable[..., io.StringIO], value: object, format: LogFormat
) -> None:
    stream = logs(4, format)
    structlog.get_logger("nvdra_x").info("odd", value=value)
    assert "odd" in stream.getvalue()


def test_a_stream_that_cannot_be_written_stops_nobody(logs: Callable[..., io.StringIO]) -> None:
    logs(4)
    configure(verbosity=4, stream=_FullDisk())
    structlog.get_logger("nvdra_x").info("lost")
    logging.getLogger("some.library").warning("lost")


class _FullDisk(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")
