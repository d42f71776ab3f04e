"""Strategic merge patches: JSON merge patches that know which lists to merge by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvdra_sim.cluster.apiserver.refusals import bad_request

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.patching.merge_keys import ListKeys, Path

_ORDER = "$setElementOrder/"
_DELETE_ITEMS = "$deleteFromPrimitiveList/"


def strategic_merge(target: Any, patch: Any, keys: ListKeys, path: Path = ()) -> Any:
    """What the patch makes of `target`, which stays as it is."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if not name.startswith("$"):
            _merge_field(merged, name, value, keys, path)
    _follow_directives(merged, patch, keys, path)
    return merged


def _merge_field(merged: Body, name: str, value: Any, keys: ListKeys, path: Path) -> None:
    here = (*path, name)
    if value is None:
        merged.pop(name, None)
    elif isinstance(value, dict):
        merged[name] = strategic_merge(merged.get(name), value, keys, here)
    elif isinstance(value, list) and (by := keys(here)) is not None:
        merged[name] = _merge_list(merged.get(name) or [], value, by, keys, here)
    else:
        merged[name] = value


def _merge_list(
    target: list[Any], patch: list[Any], by: tuple[str, ...], keys: ListKeys, path: Path
) -> list[Any]:
    if not by:
        return [*target, *(value for value in patch if value not in target)]
    if {"$patch": "replace"} in patch:
        return [item for item in patch if item != {"$patch": "replace"}]
    merged = {_key(item, by, path): item for item in target}
    for item in patch:
        key = _key(item, by, path)
        if item.get("$patch") == "delete":
            merged.pop(key, None)
        else:
            merged[key] = strategic_merge(merged.get(key), item, keys, path)
    return list(merged.values())


def _key(item: Any, by: tuple[str, ...], path: Path) -> tuple[Any, ...]:
    if not isinstance(item, dict) or by[0] not in item:
        raise bad_request(
            f"map: {item!r} in {'.'.join(path)} does not contain declared merge key: {by[0]}"
        )
    return tuple(item.get(name) for name in by)


def _follow_directives(merged: Body, patch: Body, keys: ListKeys, path: Path) -> None:
    for name, value in patch.items():
        if name == "$retainKeys":
            for field in set(merged) - set(value):
                del merged[field]
        elif name.startswith(_DELETE_ITEMS):
            field = name.removeprefix(_DELETE_ITEMS)
            merged[field] = [item for item in merged.get(field) or [] if item not in value]
        elif name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            if isinstance(merged.get(field), list):
                merged[field] = _ordered(merged[field], value, keys((*path, field)) or ())


def _ordered(items: list[Any], order: list[Any], by: tuple[str, ...]) -> list[Any]:
    """Items that the order names first, in its order; the others keep theirs, behind."""

    def identity(item: Any) -> Any:
        return tuple(item.get(name) for name in by) if by and isinstance(item, dict) else item

    ranks = [identity(item) for item in order]

    def rank(item: Any) -> int:
        key = identity(item)
        return ranks.index(key) if key in ranks else len(ranks)

    return sorted(items, key=rank)
