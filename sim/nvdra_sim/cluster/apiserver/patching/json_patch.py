"""RFC 6902 JSON patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_kube.errors import Invalid
from nvdra_sim.cluster.apiserver.bodies import own
from nvdra_sim.cluster.apiserver.refusals import bad_request

if TYPE_CHECKING:
    from nvdra_kube.api import Body

_MISSING = object()


def json_patch(document: Any, operations: Any) -> Any:
    """`document` (a copy of which is changed) after all operations.

    Raises `BadRequest` for a malformed patch and `Invalid` for one that does not fit the document.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    result = own(document)
    for number, operation in enumerate(operations):
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise bad_request(f"operation {number} of the JSON patch has no path")
        try:
            result = _apply(result, operation)
        except (KeyError, IndexError, TypeError, ValueError) as exc:
            raise _does_not_fit(number, operation) from exc
    return result


def _does_not_fit(number: int, operation: Body) -> Invalid:
    return Invalid(
        "the server rejected our request due to an error in our request: operation"
        f" {number} ({operation.get('op')} {operation['path']}) does not fit the object",
        status=422,
        reason="Invalid",
    )


def _apply(document: Any, operation: Body) -> Any:
    path = _pointer(operation["path"])
    match operation.get("op"):
        case "test":
            if _at(document, path) != operation["value"]:
                raise ValueError(operation["path"])
            return document
        case "add":
            return _add(document, path, operation["value"])
        case "remove":
            _remove(document, path)
            return document
        case "replace":
            if not path:
                return operation["value"]
            _remove(document, path)
            return _add(document, path, operation["value"])
        case "copy":
            return _add(document, path, own(_at(document, _pointer(operation["from"]))))
        case "move":
            source = _pointer(operation["from"])
            value = _at(document, source)
            _remove(document, source)
            return _add(document, path, value)
    raise bad_request(f"unknown operation {operation.get('op')!r} in the JSON patch")


def _pointer(text: str) -> list[str]:
    if not text:
        return []
    if not text.startswith("/"):
        raise bad_request(f"{text!r} is no JSON pointer: it must begin with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _at(node: Any, path: list[str]) -> Any:
    for part in path:
        node = node[_index(node, part)] if isinstance(node, list) else node[part]
    return node


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _at(document, path[:-1])
    if isinstance(parent, list):
        position = len(parent) if path[-1] == "-" else _index(parent, path[-1], extra=1)
        parent.insert(position, value)
    else:
        parent[path[-1]] = value
    return document


def _remove(document: Any, path: list[str]) -> None:
    if not path:
        raise ValueError("the whole document cannot be removed")
    parent = _at(document, path[:-1])
    del parent[_index(parent, path[-1]) if isinstance(parent, list) else path[-1]]


def _index(items: list[Any], part: str, *, extra: int = 0) -> int:
    position = int(part) if part.isdecimal() else -1
    if not 0 <= position < len(items) + extra:
        raise IndexError(part)
    return position
