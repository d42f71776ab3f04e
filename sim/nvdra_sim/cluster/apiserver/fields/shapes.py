"""Field-by-field decoding of built-in kinds: what is unknown is dropped and told, wrong types fail.

A shape is a dict of fields, a one-item list, a `MapOf`, or the type of a leaf.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Leaf(Enum):
    """The type of a value that is not looked into; the value is how messages name it."""

    TEXT = "a string"
    NUMBER = "an integer"
    FLAG = "a boolean"
    QUANTITY = "a quantity"
    ANY = "anything"


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with any names and values of one shape."""

    item: Shape


Shape: TypeAlias = "Leaf | MapOf | list[Shape] | Mapping[str, Shape]"

_CHECKS: Mapping[Leaf, Callable[[Any], bool]] = {
    Leaf.TEXT: lambda value: isinstance(value, str),
    Leaf.NUMBER: lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    ),
    Leaf.FLAG: lambda value: isinstance(value, bool),
    Leaf.QUANTITY: lambda value: (
        isinstance(value, str | int | float) and not isinstance(value, bool)
    ),
    Leaf.ANY: lambda value: True,
}


class Decoding:
    """One pass over an object, which it changes: unknown fields and nulls go."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.wrong: list[str] = []

    def visit(self, node: Any, shape: Shape, path: str = "") -> None:
        if isinstance(shape, Leaf):
            if not _CHECKS[shape](node):
                self._expected(path, shape.value, node)
        elif isinstance(shape, MapOf):
            self._visit_map(node, shape, path)
        elif isinstance(shape, list):
            self._visit_list(node, shape[0], path)
        else:
            self._visit_object(node, shape, path)

    def _visit_object(self, node: Any, shape: Mapping[str, Shape], path: str) -> None:
        if not isinstance(node, dict):
            self._expected(path, "an object", node)
            return
        for name in list(node):
            here = f"{path}.{name}" if path else name
            if name not in shape:
                self.unknown.append(here)
                del node[name]
            elif node[name] is None:
                del node[name]
            else:
                self.visit(node[name], shape[name], here)

    def _visit_map(self, node: Any, shape: MapOf, path: str) -> None:
        if not isinstance(node, dict):
            self._expected(path, "an object", node)
            return
        for name, value in node.items():
            self.visit(value, shape.item, f"{path}[{name}]")

    def _visit_list(self, node: Any, shape: Shape, path: str) -> None:
        if not isinstance(node, list):
            self._expected(path, "a list", node)
            return
        for position, value in enumerate(node):
            self.visit(value, shape, f"{path}[{position}]")

    def _expected(self, path: str, wanted: str, node: Any) -> None:
        got = _NAMES.get(type(node), type(node).__name__)
        self.wrong.append(f"{path}: expected {wanted}, got {got}")


_NAMES = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
