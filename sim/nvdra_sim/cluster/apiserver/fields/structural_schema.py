"""OpenAPI schemas of custom resources: pruning, defaults and checks, as far as they are structural.

`x-kubernetes-validations` are CEL; only the rule `self == oldSelf` (immutable) is understood.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.apiserver.bodies import own
from nvdra_sim.cluster.apiserver.refusals import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nvdra_kube.api import Body

_IMPLICIT = frozenset({"apiVersion", "kind", "metadata"})
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
_SCHEMA_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "type": str,
    "properties": dict,
    "items": dict,
    "additionalProperties": (bool, dict),
    "required": list,
    "enum": list,
    "pattern": str,
    "minimum": (int, float),
    "maximum": (int, float),
    "minLength": int,
    "maxLength": int,
    "maxItems": int,
    "x-kubernetes-validations": list,
    "x-kubernetes-list-map-keys": list,
}


def schema_problems(schema: Any, path: str) -> Iterator[Problem]:
    """What keeps a document from being a schema that `StructuralSchema` can work with."""
    if not isinstance(schema, dict):
        yield _invalid(path, schema, "must be an object")
        return
    for field, wanted in _SCHEMA_FIELDS.items():
        if field in schema and not isinstance(schema[field], wanted):
            yield _invalid(f"{path}.{field}", schema[field], "has the wrong type")
            return
    if schema.get("type", "object") not in _TYPES:
        yield _invalid(f"{path}.type", schema["type"], f"must be one of {', '.join(_TYPES)}")
    try:
        re.compile(schema.get("pattern", ""))
    except re.error as error:
        yield _invalid(f"{path}.pattern", schema["pattern"], f"is no regular expression: {error}")
    for name, child in schema.get("properties", {}).items():
        yield from schema_problems(child, f"{path}.properties[{name}]")
    if "items" in schema:
        yield from schema_problems(schema["items"], f"{path}.items")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from schema_problems(schema["additionalProperties"], f"{path}.additionalProperties")


class StructuralSchema:
    """The schema of one version of a custom resource."""

    def __init__(self, document: Body) -> None:
        self._root = document

    def prune(self, body: Body) -> list[str]:
        """Drop what the schema does not know from `body`; the paths of what was dropped."""
        return list(_prune(body, self._root, ""))

    def default(self, body: Body) -> None:
        _default(body, self._root)

    def problems(self, body: Body, old: Body | None = None) -> list[Problem]:
        return list(_check(body, old, self._root, ""))

    def list_keys(self, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """Keys by which the list at a path is merged; () for a set, None for an atomic list."""
        schema: Body | None = self._root
        for name in path:
            schema = _child(_items(schema or {}), name)
        if not schema:
            return None
        match schema.get("x-kubernetes-list-type"):
            case "map":
                return tuple(schema.get("x-kubernetes-list-map-keys", ()))
            case "set":
                return ()
        return None


def _items(schema: Body) -> Body:
    items = schema.get("items")
    return items if isinstance(items, dict) else schema


def _child(schema: Body, name: str) -> Body | None:
    child = (schema.get("properties") or {}).get(name)
    if child is None and isinstance(schema.get("additionalProperties"), dict):
        child = schema["additionalProperties"]
    return child if isinstance(child, dict) else None


def _prune(node: Any, schema: Body, path: str) -> Iterator[str]:
    if isinstance(node, list):
        for position, item in enumerate(node):
            yield from _prune(item, schema.get("items") or {}, f"{path}[{position}]")
    elif isinstance(node, dict):
        keep = schema.get("x-kubernetes-preserve-unknown-fields")
        for name in list(node):
            child = _child(schema, name)
            here = f"{path}.{name}" if path else name
            if not path and name in _IMPLICIT:
                continue
            if child is not None:
                yield from _prune(node[name], child, here)
            elif not keep and not _is_open(schema):
                del node[name]
                yield here


def _is_open(schema: Body) -> bool:
    return bool(schema.get("additionalProperties")) or bool(
        schema.get("x-kubernetes-embedded-resource")
    )


def _default(node: Any, schema: Body) -> None:
    if isinstance(node, list):
        for item in node:
            _default(item, schema.get("items") or {})
    elif isinstance(node, dict):
        for name, child in (schema.get("properties") or {}).items():
            if node.get(name) is None and not child.get("nullable"):
                node.pop(name, None)
                if "default" in child:
                    node[name] = own(child["default"])
        for name, value in node.items():
            _default(value, _child(schema, name) or {})


def _check(node: Any, old: Any, schema: Body, path: str) -> Iterator[Problem]:
    if node is None and schema.get("nullable"):
        return
    wanted = schema.get("type")
    if wanted and not _has_type(node, wanted, schema):
        message = f"Invalid value: {_shown(node)}: {path} in body must be of type {wanted}"
        yield Problem(path, "FieldValueTypeInvalid", message)
        return
    yield from _check_value(node, schema, path)
    yield from _check_rules(node, old, schema, path)
    if isinstance(node, dict):
        yield from _check_object(node, old, schema, path)
    elif isinstance(node, list):
        if "maxItems" in schema and len(node) > schema["maxItems"]:
            message = f"Too many: {len(node)}: must have at most {schema['maxItems']} items"
            yield Problem(path, "FieldValueTooMany", message)
        yield from _check_list_map(node, schema, path)
        for position, item in enumerate(node):
            yield from _check(item, None, schema.get("items") or {}, f"{path}[{position}]")


def _check_object(node: Body, old: Any, schema: Body, path: str) -> Iterator[Problem]:
    for name in schema.get("required") or ():
        if name not in node:
            here = f"{path}.{name}" if path else name
            yield Problem(here, "FieldValueRequired", "Required value")
    for name, value in node.items():
        child = _child(schema, name)
        if child is not None and not (not path and name in _IMPLICIT):
            before = old.get(name) if isinstance(old, dict) else None
            yield from _check(value, before, child, f"{path}.{name}" if path else name)


def _check_value(node: Any, schema: Body, path: str) -> Iterator[Problem]:
    if "enum" in schema and node not in schema["enum"]:
        allowed = ", ".join(f'"{value}"' for value in schema["enum"])
        message = f"Unsupported value: {_shown(node)}: supported values: {allowed}"
        yield Problem(path, "FieldValueNotSupported", message)
    if isinstance(node, str):
        if "pattern" in schema and not re.search(schema["pattern"], node):
            message = f"{path} in body should match '{schema['pattern']}'"
            yield _invalid(path, node, message)
        if len(node) < schema.get("minLength", 0):
            at_least = f"{path} in body should be at least {schema['minLength']} chars long"
            yield _invalid(path, node, at_least)
        if "maxLength" in schema and len(node) > schema["maxLength"]:
            message = f"Too long: may not be more than {schema['maxLength']} bytes"
            yield Problem(path, "FieldValueTooLong", message)
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        if "minimum" in schema and node < schema["minimum"]:
            limit = f"{path} in body should be greater than or equal to {schema['minimum']}"
            yield _invalid(path, node, limit)
        if "maximum" in schema and node > schema["maximum"]:
            limit = f"{path} in body should be less than or equal to {schema['maximum']}"
            yield _invalid(path, node, limit)


def _check_rules(node: Any, old: Any, schema: Body, path: str) -> Iterator[Problem]:
    for rule in schema.get("x-kubernetes-validations") or ():
        text = str(rule.get("rule", "")) if isinstance(rule, dict) else ""
        immutable = "".join(text.split()) in ("self==oldSelf", "oldSelf==self")
        if immutable and old is not None and node != old:
            message = str(rule.get("message") or f"failed rule: {rule['rule']}")
            yield _invalid(path, "object" if isinstance(node, dict) else node, message)


def _check_list_map(node: list[Any], schema: Body, path: str) -> Iterator[Problem]:
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") != "map" or not keys:
        return
    seen = []
    for position, item in enumerate(node):
        key = [item.get(name) for name in keys] if isinstance(item, dict) else item
        if key in seen:
            shown = ", ".join(f"{name}={value!r}" for name, value in zip(keys, key, strict=True))
            yield Problem(f"{path}[{position}]", "FieldValueDuplicate", f"Duplicate value: {shown}")
        seen.append(key)


def _has_type(node: Any, wanted: str, schema: Body) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(node, (int, str))
    if isinstance(node, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(node, float):
        return node.is_integer()
    return isinstance(node, _TYPES.get(wanted, object))


def _invalid(path: str, value: Any, why: str) -> Problem:
    return Problem(path, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}")


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
