"""Server-side apply, simplified: only appliers own fields; other writers never conflict with them.

What a manager applied is kept in `metadata.managedFields`, so that a field which it no longer
names, and nobody else applied, is removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from nvdra_kube.errors import Conflict
from nvdra_sim.cluster.apiserver.bodies import own

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.patching.merge_keys import ListKeys, Path

Field: TypeAlias = tuple[str, ...]
"""A path in the notation of FieldsV1: `f:name`, `k:{"name":"x"}`, `v:"x"`."""

_NOT_OWNED = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        *(("f:metadata", f"f:{name}") for name in ("name", "namespace", "uid", "resourceVersion")),
    }
)
_encode = msgspec.json.Encoder(order="deterministic").encode


def server_side_apply(
    current: Body | None,
    applied: Body,
    *,
    manager: str,
    force: bool,
    keys: ListKeys,
    now: str,
    subresource: str = "",
) -> Body:
    """The object after `manager` applied its intent; raises `Conflict` where another one owns."""
    fields = set(_fields(applied, keys, (), ()))
    base: Body = own(current) if current else {}
    entries = (base.get("metadata") or {}).pop("managedFields", [])
    mine = {"manager": manager, "operation": "Apply", "subresource": subresource}
    others = [entry for entry in entries if not _is(entry, mine)]
    owned = set[Field]().union(*(_decoded(entry) for entry in entries if _is(entry, mine)))
    _settle_conflicts(base, applied, fields, others, force=force, keys=keys)
    elsewhere = set[Field]().union(*map(_decoded, others))
    for field in sorted(owned - fields - elsewhere, key=len, reverse=True):
        _remove(base, field)
    merged: Body = _merge(base, applied, keys, ())
    before: Body = next((entry for entry in entries if _is(entry, mine)), {})
    encoded = _encoded(fields)
    # A repeated apply must not count as a change because of its time alone.
    time = before.get("time") if before.get("fieldsV1") == encoded else None
    entry: Body = {
        **{name: value for name, value in mine.items() if value},
        "apiVersion": applied.get("apiVersion", ""),
        "time": time or now,
        "fieldsType": "FieldsV1",
        "fieldsV1": encoded,
    }
    merged.setdefault("metadata", {})["managedFields"] = [
        *(other for other in others if other["fieldsV1"]),
        entry,
    ]
    return merged


def _settle_conflicts(
    current: Body,
    applied: Body,
    fields: set[Field],
    others: list[Body],
    *,
    force: bool,
    keys: ListKeys,
) -> None:
    """Take fields over from other managers where allowed; agreeing on a value is no conflict."""
    for other in others:
        theirs = _decoded(other)
        disputed = sorted(
            field for field in fields & theirs if _find(current, field) != _find(applied, field)
        )
        if not disputed:
            continue
        if not force:
            raise _conflict(other["manager"], disputed)
        other["fieldsV1"] = _encoded(theirs - set(disputed))


def _conflict(manager: str, fields: list[Field]) -> Conflict:
    shown = [".".join(part[2:] for part in field) for field in fields]
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}"',
            "field": f".{name}",
        }
        for name in shown
    ]
    return Conflict(
        f'Apply failed with {len(shown)} conflict(s): conflicts with "{manager}":'
        f" {', '.join(shown)}",
        status=409,
        reason="Conflict",
        details={"causes": causes},
    )


def _fields(node: Any, keys: ListKeys, path: Path, field: Field) -> Iterator[Field]:
    """The leaves of an applied object."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _fields(value, keys, (*path, name), (*field, f"f:{name}"))
        return
    if isinstance(node, list) and path and (by := keys(path)) is not None:
        for item in node:
            part = _item_part(item, by)
            if by and isinstance(item, dict):
                yield from _fields(item, keys, path, (*field, part))
            else:
                yield (*field, part)
        return
    if field and field not in _NOT_OWNED:
        yield field


def _item_part(item: Any, by: tuple[str, ...]) -> str:
    if by and isinstance(item, dict):
        key = {name: item[name] for name in by if name in item}
        return f"k:{_encode(key).decode()}"
    return f"v:{_encode(item).decode()}"


def _merge(target: Any, applied: Any, keys: ListKeys, path: Path) -> Any:
    if isinstance(applied, dict):
        merged = dict(target) if isinstance(target, dict) else {}
        for name, value in applied.items():
            merged[name] = _merge(merged.get(name), value, keys, (*path, name))
        return merged
    by = keys(path) if isinstance(applied, list) and path else None
    if by is None:
        return applied
    items = {_item_part(item, by): item for item in (target or [])}
    for item in applied:
        part = _item_part(item, by)
        items[part] = _merge(items.get(part), item, keys, path) if by else item
    return list(items.values())


def _step(node: Any, part: str) -> tuple[Any, Any]:
    """Where a part leads: the index into `node`, and what is there (None: nothing)."""
    notation, text = part[:2], part[2:]
    if notation == "f:":
        return (text, node.get(text)) if isinstance(node, dict) else (None, None)
    if not isinstance(node, list):
        return None, None
    wanted = msgspec.json.decode(text)
    for index, item in enumerate(node):
        if notation == "v:" and item == wanted:
            return index, item
        if notation == "k:" and isinstance(item, dict) and wanted.items() <= item.items():
            return index, item
    return None, None


def _find(node: Any, field: Field) -> Any:
    for part in field:
        node = _step(node, part)[1]
    return node


def _remove(node: Any, field: Field) -> None:
    """Take a leaf out, and the list item or object around it that nothing else is left of."""
    index, inner = _step(node, field[0])
    if index is None or inner is None:
        return
    if len(field) > 1:
        _remove(inner, field[1:])
        left = set(inner) if isinstance(inner, dict) else inner
        keys = set(msgspec.json.decode(field[0][2:])) if field[0].startswith("k:") else set()
        if left and (not isinstance(left, set) or left - keys):
            return
    del node[index]


def _encoded(fields: set[Field]) -> Body:
    tree: Body = {}
    for field in sorted(fields):
        node = tree
        for part in field:
            node = node.setdefault(part, {})
    return tree


def _decoded(entry: Body) -> set[Field]:
    def leaves(node: Body, field: Field) -> Iterator[Field]:
        if not node and field:
            yield field
        for part, inner in node.items():
            yield from leaves(inner, (*field, part))

    return set(leaves(entry.get("fieldsV1") or {}, ()))


def _is(entry: Body, mine: Body) -> bool:
    return all((entry.get(name) or "") == value for name, value in mine.items())
