"""The configuration file as text: nothing is imported here, so that a query costs little."""

from __future__ import annotations


class BadConfiguration(Exception):
    """The program cannot start with this; the message says why."""


def read_keys(path: str) -> dict[str, str]:
    """`KEY=value` lines; everything else is a comment."""
    pairs = (line.partition("=") for line in read_lines(path))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def read_lines(path: str) -> list[str]:
    """Lines that say something.

    :raises BadConfiguration: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 20 ms
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"cannot read {path}: {error}") from error
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]
