"""Columns that definitions of custom resources add to what `kubectl get` shows.

Of JSONPath the part that columns use: fields, `[*]`, `[2]`, and `[?(@.type=="Ready")]`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nvdra_kube.api import Body

_STEP: Final = re.compile(
    r"\.(?P<name>[\w-]+)"
    r"|\['(?P<quoted>[^']+)'\]"
    r"|\[(?P<index>\d+)\]"
    r"|(?P<all>\[\*\])"
    r"""|\[\?\(@(?P<path>(?:\.[\w-]+)+)\s*==\s*["'](?P<value>[^"']*)["']\)\]"""
)


class BadPath(ValueError):
    """A JSONPath of another form than columns have."""


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """One column; `priority` above 0 is shown by `kubectl get -o wide` alone."""

    name: str
    type: str
    path: str
    description: str = ""
    priority: int = 0

    def values(self, item: Body) -> list[Any]:
        """What the path leads to."""
        found: list[Any] = [item]
        for step in steps(self.path):
            found = [value for node in found for value in _follow(node, step)]
        return found

    def text(self, item: Body) -> str | None:
        """The cell; None without a value. Of several values the first, as API servers have it."""
        for value in self.values(item):
            return value if isinstance(value, str) else json.dumps(value)
        return None


def printer_columns(version: Body) -> tuple[PrinterColumn, ...]:
    """Those of one version of a definition."""
    return tuple(
        PrinterColumn(
            name=column["name"],
            type=column["type"],
            path=column["jsonPath"],
            description=column.get("description", ""),
            priority=column.get("priority", 0),
        )
        for column in version.get("additionalPrinterColumns") or ()
    )


def steps(path: str) -> list[re.Match[str]]:
    """Raises `BadPath`."""
    found, position = [], 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise BadPath(f"JSONPath {path!r}: {path[position:]!r} is not understood")
        found.append(step)
        position = step.end()
    return found


def _follow(node: Any, step: re.Match[str]) -> Iterable[Any]:
    name = step["name"] or step["quoted"]
    if name:
        return [node[name]] if isinstance(node, dict) and name in node else []
    if step["all"]:
        return list(node.values()) if isinstance(node, dict) else _items(node)
    items = _items(node)
    if step["index"]:
        return items[int(step["index"]) :][:1]
    return _chosen(items, step["path"], step["value"])


def _chosen(items: Iterable[Any], path: str, value: str) -> Iterator[Any]:
    key = PrinterColumn("", "string", path)
    return (item for item in items if key.values(item) == [value])


def _items(node: Any) -> list[Any]:
    return node if isinstance(node, list) else []
