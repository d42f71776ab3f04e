"""JSON text read without losing what a decoder hides: repeated keys and the spelling of numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, final

from nvdra_api.errors import ConfigError, Problem


@final
class Members(tuple[tuple[str, Any], ...]):
    """The members of a JSON object in document order, repeated keys included."""

    __slots__ = ()


@final
class Decimal(str):
    """A JSON number with a fraction or an exponent, as it was written."""

    __slots__ = ()


def read_json(raw: bytes | str) -> object:
    """Read a JSON document; objects become `Members`, fractional numbers `Decimal`.

    :raises ConfigError: the text is not JSON (RFC 8259, UTF-8).
    """
    try:
        text = raw if isinstance(raw, str) else bytes(raw).decode("utf-8")
        return json.loads(
            text, object_pairs_hook=Members, parse_float=Decimal, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise _unreadable(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _unreadable(f"{error.msg} at {where}") from error
    except RecursionError as error:
        raise _unreadable("objects are nested too deeply") from error
    except ValueError as error:  # a number with thousands of digits, NaN or Infinity
        raise _unreadable(str(error)) from error


def members_of(node: object) -> Members | None:
    """The members of an object, read by `read_json` or decoded elsewhere; None for non-objects."""
    if isinstance(node, Members):
        return node
    if isinstance(node, Mapping):
        return Members((str(key), value) for key, value in node.items())
    return None


def type_name(node: object) -> str:
    """What JSON calls a node, for error messages."""
    if node is None:
        return "null"
    if isinstance(node, bool):
        return "boolean"
    if isinstance(node, int | float | Decimal):
        return "number"
    if isinstance(node, str):
        return "string"
    return "object" if members_of(node) is not None else "array"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unreadable(cause: str) -> ConfigError:
    return ConfigError([Problem("", f"cannot parse JSON: {cause}")])
