"""Decoders of structs are built on import.

msgspec builds them at the first use of a type, and two threads that do so at once crash the
process. Imports are done by one thread at a time.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("crds", "kube", "operator", "nodeagent", "sim", "cli")
BUILT_IN = frozenset(("dict", "list", "int", "str", "bool", "float", "bytes", "object"))


def late_types(source: str) -> list[str]:
    """Types that functions of a module decode, and that no decoder of the module is built for."""
    tree = ast.parse(source)
    ready = {name for call in _calls(_on_import(tree)) for name in _decoder_types(call)}
    decoded = {name for call in _calls(ast.walk(tree)) for name in _decoded_types(call)}
    return sorted(decoded - ready - BUILT_IN)


def _on_import(tree: ast.Module) -> Iterator[ast.AST]:
    for statement in tree.body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from ast.walk(statement)


def _calls(nodes: Iterator[ast.AST]) -> Iterator[ast.Call]:
    return (node for node in nodes if isinstance(node, ast.Call))


def _decoder_types(call: ast.Call) -> set[str]:
    return _names(call.args[0]) if _is(call, "Decoder") and call.args else set()


def _decoded_types(call: ast.Call) -> set[str]:
    if _is(call, "decode"):
        return {n for keyword in call.keywords if keyword.arg == "type" for n in _names(keyword)}
    if _is(call, "convert") and len(call.args) > 1:
        return _names(call.args[1])
    return set()


def _is(call: ast.Call, name: str) -> bool:
    function = ast.unparse(call.func)
    return function.startswith("msgspec.") and function.endswith(f".{name}")


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


@pytest.mark.parametrize("room", ROOMS)
def test_no_function_builds_a_decoder(room: str) -> None:
    found = {
        str(path.relative_to(ROOT)): late
        for path in sorted((ROOT / room).rglob("*.py"))
        if (late := late_types(path.read_text(encoding="utf-8")))
    }
    assert not found, "build msgspec.json.Decoder(TYPE) when the module is imported"


@pytest.mark.parametrize(
    ("source", "late"),
    [
        ("def f(x): return msgspec.json.decode(x, type=Spec)", ["Spec"]),
        ("def f(x): return msgspec.convert(x, list[Spec])", ["Spec"]),
        ("msgspec.json.Decoder(Spec)\ndef f(x): return msgspec.convert(x, Spec)", []),
        ("def f(x): return msgspec.json.decode(x, type=dict[str, int])", []),
        ("def f(x): return msgspec.json.decode(x)", []),
    ],
)
def test_late_decoders_are_found(source: str, late: list[str]) -> None:
    assert late_types(source) == late
