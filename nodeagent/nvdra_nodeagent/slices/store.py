"""Reads and writes the slices of one pool in one version of the API."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import NODES, RESOURCE_SLICES
from nvdra_nodeagent.slices.body import comparable, missing_fields
from nvdra_nodeagent.slices.errors import SlicesNotServed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.informer import Change, Key
    from nvdra_nodeagent.slices.changes import Accepted, Changes, Pool, Stored, Write


@dataclass(slots=True)
class WriteCounts:
    """Writes that the API has taken."""

    created: int = 0
    updated: int = 0
    deleted: int = 0

    @property
    def total(self) -> int:
        return self.created + self.updated + self.deleted


class Echoes:
    """Own writes that the watch has not brought back yet: until then its copy is behind."""

    def __init__(self) -> None:
        # Resource version by object name; "" where it was deleted.
        self._awaited: dict[str, str] = {}

    @property
    def pending(self) -> bool:
        return bool(self._awaited)

    def expect(self, name: str, version: str, seen: Mapping[Key, Body]) -> None:
        """A write is done; `seen` is the watch's copy, which may be faster than the answer."""
        if _version(seen.get(("", name))) != version:
            self._awaited[name] = version

    def hear(self, change: Change) -> bool:
        """Whether this change is the echo of an own write."""
        version = "" if change.type == "deleted" else _version(change.object)
        name = change.key[1]
        if self._awaited.get(name) != version:
            return False
        del self._awaited[name]
        return True

    def settle(self, listed: list[Body], seen: Mapping[Key, Body]) -> None:
        """Forget what a fresh list contradicts or the watch has caught up with."""
        now = {body["metadata"]["name"]: _version(body) for body in listed}
        self._awaited = {
            name: version
            for name, version in self._awaited.items()
            if now.get(name, "") == version != _version(seen.get(("", name)))
        }


class SliceStore:
    """`seen` is the watch's copy of the same slices; `on_dropped` gets paths of dropped fields."""

    def __init__(
        self,
        api: KubeApi,
        *,
        pool: Pool,
        version: str,
        counts: WriteCounts,
        accepted: Accepted,
        on_dropped: Callable[[list[str]], None],
    ) -> None:
        self.resource = replace(RESOURCE_SLICES, version=version)
        self.version = version
        self.selector = f"spec.driver={pool.driver},spec.nodeName={pool.node}"
        self.echoes = Echoes()
        self._api = api
        self._pool = pool
        self._counts = counts
        self._accepted = accepted
        self._on_dropped = on_dropped

    async def list(self) -> list[Body]:
        """The slices now. Raises `SlicesNotServed` where the server lacks this version."""
        try:
            answer = await self._api.list(self.resource, field_selector=self.selector)
        except NotFound as error:
            raise SlicesNotServed((self.version,)) from error
        items: list[Body] = answer.get("items") or []
        return items

    async def apply(self, changes: Changes, *, seen: Mapping[Key, Body]) -> None:
        """Write the changes in their order. A `Conflict` or `NotFound` means: list again."""
        for obsolete in changes.deletions:
            await self._delete(obsolete, seen)
        # Read each time, not once: a node that was deleted and came back has another uid, and
        # slices owned by the old one are collected as garbage.
        adding = any(write.replaces is None for write in changes.writes)
        owner = await self._owner() if adding else {}
        for write in changes.writes:
            stored = await self._write(write, owner)
            metadata = stored["metadata"]
            self.echoes.expect(metadata["name"], _version(stored), seen)
            self._compare(write.spec, stored["spec"])

    async def _delete(self, obsolete: Stored, seen: Mapping[Key, Body]) -> None:
        try:
            await self._api.delete(
                self.resource,
                obsolete.name,
                uid=obsolete.uid,
                resource_version=obsolete.resource_version,
            )
        except NotFound:
            return
        self._counts.deleted += 1
        self.echoes.expect(obsolete.name, "", seen)

    async def _write(self, write: Write, owner: Body) -> Body:
        kind = {"apiVersion": self.resource.api_version, "kind": self.resource.kind}
        if write.replaces is not None:
            body = {**write.replaces.body, **kind, "spec": write.spec}
            stored = await self._api.update(self.resource, body)
            self._counts.updated += 1
            return stored
        metadata = {
            "generateName": self._pool.generate_name(write.index),
            "ownerReferences": [owner],
        }
        body = {**kind, "metadata": metadata, "spec": write.spec}
        stored = await self._api.create(self.resource, body)
        self._counts.created += 1
        return stored

    async def _owner(self) -> Body:
        """A reference to the node, so that its slices go when it goes."""
        node = await self._api.get(NODES, self._pool.node)
        return {
            "apiVersion": NODES.api_version,
            "kind": NODES.kind,
            "name": self._pool.node,
            "uid": node["metadata"]["uid"],
            "controller": True,
        }

    def _compare(self, sent: Body, stored: Body) -> None:
        meant, got = comparable(sent), comparable(stored)
        if meant == got:
            return
        self._accepted.note(meant, got)
        if dropped := missing_fields(meant, got):
            self._on_dropped(dropped)


def _version(body: Body | None) -> str:
    return str(body["metadata"].get("resourceVersion", "")) if body else ""
