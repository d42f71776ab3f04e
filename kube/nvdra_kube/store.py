"""What a list and its watch add up to: the objects known now, and what changed since before.

Synchronous and free of I/O, so that every order of lists and events can be tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nvdra_kube.api import Body, Resource, WatchEvent

Key: TypeAlias = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the store before and after.

    `object` is the new object, or for "deleted" the last one known; `old` is what was stored.
    """

    type: Literal["added", "modified", "deleted"]
    key: Key
    object: Body
    old: Body | None = None


def key_of(body: Body) -> Key:
    """The key of an object as the API returns it."""
    metadata = body["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def as_is(body: Body) -> Body:
    """Keep the whole object."""
    return body


class ObjectStore:
    """Objects of one resource by key. Readers must not edit what they get."""

    def __init__(self, resource: Resource, *, keep: Callable[[Body], Body] = as_is) -> None:
        self._resource = resource
        self._keep = keep
        self._objects: dict[Key, Body] = {}
        self.objects: Mapping[Key, Body] = MappingProxyType(self._objects)

    def replace(self, bodies: Iterable[Body]) -> list[Change]:
        """Make the store equal to a fresh list.

        Objects that vanished while nobody watched come out as "deleted", before everything else,
        so that a name that was taken over by another object is seen free first.
        """
        fresh = {key_of(body): self._trim(body) for body in bodies}
        gone = [key for key in self._objects if key not in fresh]
        changes = [Change("deleted", key, old, old) for key in gone if (old := self._take(key))]
        for key, body in fresh.items():
            changes += self._put(key, body)
        return changes

    def apply(self, event: WatchEvent) -> list[Change]:
        """Take one event of a watch. Repeated and unknown objects change nothing."""
        if event.type == "BOOKMARK":
            return []
        key = key_of(event.object)
        if event.type == "DELETED":
            old = self._take(key)
            return [Change("deleted", key, self._trim(event.object), old)] if old else []
        return self._put(key, self._trim(event.object))

    def _put(self, key: Key, body: Body) -> list[Change]:
        old = self._objects.get(key)
        self._objects[key] = body
        if old is None:
            return [Change("added", key, body)]
        if _meta(old, "uid") != _meta(body, "uid"):
            # Deleted and created again in a gap: two lives, not one edit.
            return [Change("deleted", key, old, old), Change("added", key, body)]
        version = _meta(body, "resourceVersion")
        if version and version == _meta(old, "resourceVersion"):
            return []
        return [Change("modified", key, body, old)]

    def _take(self, key: Key) -> Body | None:
        return self._objects.pop(key, None)

    def _trim(self, body: Body) -> Body:
        # Items of a list come without the two, events of a watch with them.
        body.setdefault("apiVersion", self._resource.api_version)
        body.setdefault("kind", self._resource.kind)
        return self._keep(body)


def _meta(body: Body, field: str) -> str:
    value = body.get("metadata", {}).get(field, "")
    return value if isinstance(value, str) else ""
