"""The reasons that the node agent's source can give, found without running it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_testing.documents import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = ROOT / "nodeagent" / "nvdra_nodeagent"
ERRORS = ("AgentError", "Permanent", "Retryable", "NotYet", "NodeFault")

_SILENT = {"proto", "hardware"}  # generated; errors of its own, which name no reasons
_REASON = re.compile(r"[A-Z][a-z]+([A-Z][a-z]+)*")


@dataclass(frozen=True)
class Raised:
    """A reason in the code. `error` is the class that carries it, "" where that is open."""

    reason: str
    error: str
    place: str


@dataclass(frozen=True)
class _Given:
    """A function whose parameter `reason` becomes that of an error."""

    position: int
    error: str


class Unclear(AssertionError):
    """An error whose reason cannot be read from the source."""


def raised_reasons(source: Path = SOURCE) -> list[Raised]:
    """All of them. :raises Unclear: write the reason as a constant where the error is made."""
    trees = {
        path: ast.parse(path.read_text())
        for path in sorted(source.rglob("*.py"))
        if _SILENT.isdisjoint(path.parts)
    }
    return [found for path, tree in trees.items() for found in _in_module(tree, path)]


def _in_module(tree: ast.Module, path: Path) -> Iterator[Raised]:
    passed_on = dict(_functions_with_reason(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _of_class(node, path)
        if not isinstance(node, ast.Call):
            continue
        place = f"{path.name}:{node.lineno}"
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ERRORS and node.args:
            yield from _clear(node.args[0], name, place)
        elif name in passed_on and len(node.args) > passed_on[name].position:
            given = passed_on[name]
            yield from _clear(node.args[given.position], given.error, place)
        for keyword in node.keywords:
            if keyword.arg == "reason":
                for text in filter(_REASON.fullmatch, _texts(keyword.value)):
                    yield Raised(text, "", place)


def _functions_with_reason(tree: ast.Module) -> Iterator[tuple[str, _Given]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [argument.arg for argument in node.args.args]
            errors = [
                call.func.id
                for call in ast.walk(node)
                if isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and call.func.id in ERRORS
                and call.args
                and isinstance(call.args[0], ast.Name)
            ]
            if "reason" in names and errors:
                yield node.name, _Given(names.index("reason"), errors[0])


def _of_class(node: ast.ClassDef, path: Path) -> Iterator[Raised]:
    """`super().__init__("Reason", ...)` in an error of its own."""
    for call in ast.walk(node):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "__init__"
            and call.args
        ):
            for text in filter(_REASON.fullmatch, _texts(call.args[0])):
                yield Raised(text, _base(node), f"{path.name}:{call.lineno}")


def _base(node: ast.ClassDef) -> str:
    names = [base.id for base in node.bases if isinstance(base, ast.Name)]
    return next((name for name in names if name in ERRORS), "")


def _clear(node: ast.expr, error: str, place: str) -> Iterator[Raised]:
    texts = _texts(node)
    handed_on = isinstance(node, ast.Attribute | ast.Name) and "reason" in ast.unparse(node)
    if not texts and not handed_on:
        raise Unclear(f"{place}: which reason has {ast.unparse(node)}?")
    for text in texts:
        yield Raised(text, error, place)


def _texts(node: ast.expr) -> list[str]:
    """The constants that an expression can be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    return []
