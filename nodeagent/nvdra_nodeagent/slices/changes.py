"""Which writes turn the stored slices of a pool into the desired ones. Pure.

Consumers take only the slices of a pool's highest generation, and a pool as a whole only when as
many are there as each of them says. So one slice may change in place; wider changes get a new
generation. A pool that is merely incomplete is completed within its generation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.slices.body import comparable, keep_taint_times, slice_spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nvdra_kube.api import Body
    from nvdra_nodeagent.slices.model import SliceContent

# Names start with the slice's index, because schedulers take slices in the order of their names.
_INDEX: Final = re.compile(r"([0-9a-f]{5,})-")
# The API server keeps this much of generateName before it appends its random part.
_KEPT_OF_NAME: Final = 58


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of one driver on one node."""

    driver: str
    node: str
    name: str

    def generate_name(self, index: int) -> str:
        return f"{index:05x}-{self.driver}-{self.node}-"

    def index_of(self, name: str) -> int | None:
        """The place in the pool that an object's name claims; None when it is not ours."""
        match = _INDEX.match(name)
        if match is None:
            return None
        index = int(match[1], 16)
        prefix = self.generate_name(index)[:_KEPT_OF_NAME]
        return index if name.startswith(prefix) else None


@dataclass(frozen=True)
class Stored:
    """A slice as the API has it."""

    body: Body

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.body["metadata"].get("uid", ""))

    @property
    def resource_version(self) -> str:
        return str(self.body["metadata"].get("resourceVersion", ""))

    @property
    def pool(self) -> str:
        return str(self.body["spec"].get("pool", {}).get("name", ""))

    @property
    def generation(self) -> int:
        return int(self.body["spec"].get("pool", {}).get("generation", 0))

    def belongs_to(self, pool: Pool) -> bool:
        """Whether we may write or delete it: selectors ask for no more, this makes sure."""
        spec = self.body["spec"]
        return bool(spec.get("driver") == pool.driver and spec.get("nodeName") == pool.node)

    @cached_property
    def meaning(self) -> Body:
        return comparable(self.body["spec"])


@dataclass(frozen=True, slots=True)
class Write:
    """A slice to be sent: a creation where `replaces` is None."""

    index: int
    spec: Body
    replaces: Stored | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """In this order: deletions, then updates, then creations."""

    generation: int
    deletions: tuple[Stored, ...] = ()
    writes: tuple[Write, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.deletions or self.writes)


class Accepted:
    """What a server made of specs that it did not store as sent: as good as stored.

    Without this memory an agent and a server that drops a field would write for ever.
    """

    def __init__(self) -> None:
        self._made_of: list[tuple[Body, Body]] = []

    def note(self, sent: Body, stored: Body) -> None:
        self._made_of = [pair for pair in self._made_of if pair[0] != sent]
        self._made_of.append((sent, stored))

    def clear(self) -> None:
        self._made_of.clear()

    def matches(self, sent: Body, stored: Body) -> bool:
        return sent == stored or (sent, stored) in self._made_of


def plan_changes(
    desired: Sequence[SliceContent],
    stored: Iterable[Body],
    *,
    pool: Pool,
    version: str,
    accepted: Accepted,
) -> Changes:
    """The writes that are needed; none when what is stored means what is desired."""
    present = [one for one in map(Stored, stored) if one.belongs_to(pool)]
    reached = max((one.generation for one in present), default=1)
    places = _places(present, pool, slices=len(desired))
    kept = {one.name for one in places.values()}
    obsolete = tuple(one for one in present if one.name not in kept)
    specs = _specs(desired, pool=pool, version=version, generation=reached)
    current = {index: one for index, one in places.items() if one.generation == reached}
    missing = [index for index in range(len(desired)) if index not in current]
    differing = [
        index
        for index, one in current.items()
        if not accepted.matches(comparable(specs[index]), one.meaning)
    ]
    if len(differing) <= 1 and not (differing and missing):
        return _changes(reached, obsolete, specs, differing + missing, places)
    specs = _specs(desired, pool=pool, version=version, generation=reached + 1)
    return _changes(reached + 1, obsolete, specs, range(len(desired)), places)


def _specs(
    desired: Sequence[SliceContent], *, pool: Pool, version: str, generation: int
) -> list[Body]:
    return [
        slice_spec(
            content,
            version=version,
            driver=pool.driver,
            node=pool.node,
            pool=pool.name,
            generation=generation,
            slice_count=len(desired),
        )
        for content in desired
    ]


def _places(present: Sequence[Stored], pool: Pool, *, slices: int) -> Mapping[int, Stored]:
    """The objects that can be kept, by index: of several the newest generation, then by name."""
    found: dict[int, Stored] = {}
    for one in sorted(present, key=lambda one: (-one.generation, one.name)):
        index = pool.index_of(one.name)
        if index is not None and index < slices and one.pool == pool.name:
            found.setdefault(index, one)
    return found


def _changes(
    generation: int,
    obsolete: tuple[Stored, ...],
    specs: Sequence[Body],
    due: Iterable[int],
    places: Mapping[int, Stored],
) -> Changes:
    writes = [Write(index, specs[index], places.get(index)) for index in due]
    for write in writes:
        if write.replaces:
            keep_taint_times(write.spec, write.replaces.body["spec"])
    writes.sort(key=lambda write: (write.replaces is None, write.index))
    return Changes(generation, obsolete, tuple(writes))
