"""Reading Kubernetes manifests from files: what stands where, and what is wrong with it."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a file. `source` is `FILE:LINE`, the line where its document begins."""

    source: str
    body: Body

    def __str__(self) -> str:
        meta = self.body["metadata"]
        name = meta.get("name") or f"{meta.get('generateName', '')}..."
        namespace = meta.get("namespace")
        where = f"{namespace}/{name}" if namespace else name
        return f"{self.body['kind']} {where}"


class ManifestError(Exception):
    """A file cannot be read as manifests. The text names file, line and cause."""


class _StrictLoader(yaml.SafeLoader):
    """YAML as Kubernetes reads it, but for one thing: a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a string", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# Kubernetes has no timestamps, numbers to the base of 60 or `=` in YAML: what looks like a date or
# a time of day is a string.
_TAGS_LEFT_OUT = (":timestamp", ":value", ":int", ":float")
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_TAGS_LEFT_OUT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(0b[01_]+|0[0-7_]*|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|"
        r"\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)

_MOST_NODES = 200_000
"""Of one document with its aliases written out: far more than any API server takes."""


def load_manifests(paths: Sequence[Path]) -> list[Manifest]:
    """All objects of the files in order; `-` is standard input, a directory its YAML files.

    Lists are taken apart. Raises `ManifestError`.
    """
    manifests = [manifest for path in paths for manifest in _load(path)]
    if not manifests:
        names = ", ".join(map(str, paths))
        raise ManifestError(f"no objects in {names}")
    return manifests


def _load(path: Path) -> Iterator[Manifest]:
    if path.is_dir():
        for file in sorted([*path.glob("*.yaml"), *path.glob("*.yml"), *path.glob("*.json")]):
            yield from _load(file)
        return
    name = "standard input" if str(path) == "-" else str(path)
    for line, document in _documents(_read(path, name), name):
        yield from _objects(document, f"{name}:{line}")


def _read(path: Path, name: str) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ManifestError(f"cannot read {name}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ManifestError(f"{name} is not UTF-8 text") from exc


def _documents(text: str, name: str) -> Iterator[tuple[int, Any]]:
    try:
        loader = _StrictLoader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node() said there is one"
            line = node.start_mark.line + 1
            _check_size(node, f"{name}:{line}")
            yield line, _plain(loader.construct_document(node), f"{name}:{line}")
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else 1
        raise ManifestError(f"{name}:{line}: not valid YAML: {exc.problem}") from exc
    except yaml.YAMLError as exc:
        raise ManifestError(f"{name}: not valid YAML: {exc}") from exc
    except RecursionError as exc:
        raise ManifestError(f"{name}: nested too deeply") from exc


def _check_size(root: yaml.Node, source: str) -> None:
    """An alias that contains itself never ends, and a few aliases of aliases take all memory."""
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise ManifestError(f"{source}: an alias contains itself")
            return known
        sizes[id(node)] = None
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        total = 1
        for part in parts:
            total += sum(map(size, part)) if isinstance(part, tuple) else size(part)
        sizes[id(node)] = total
        return total

    if size(root) > _MOST_NODES:
        raise ManifestError(f"{source}: more than {_MOST_NODES} values, aliases written out")


def _plain(document: Any, source: str) -> Any:
    """The document as JSON has it. YAML can say more: sets, bytes, numbers that are none."""
    try:
        return json.loads(json.dumps(document, allow_nan=False))
    except (TypeError, ValueError) as exc:
        raise ManifestError(f"{source}: cannot be written as JSON: {exc}") from exc


def _objects(document: Any, source: str) -> Iterable[Manifest]:
    if document is None:
        return []
    if not isinstance(document, dict):
        raise ManifestError(f"{source}: a manifest is a mapping, this is {type(document).__name__}")
    for field in ("apiVersion", "kind"):
        if not isinstance(document.get(field), str) or not document[field]:
            raise ManifestError(f"{source}: {field} is missing")
    if document["kind"].endswith("List") and "items" in document:
        items = document["items"] or []
        if not isinstance(items, list):
            raise ManifestError(f"{source}: items of {document['kind']} is not a list")
        return [item for part in items for item in _objects(part, source)]
    meta = document.get("metadata")
    if not isinstance(meta, dict) or not (meta.get("name") or meta.get("generateName")):
        raise ManifestError(f"{source}: {document['kind']} has no metadata.name")
    return [Manifest(source=source, body=document)]
