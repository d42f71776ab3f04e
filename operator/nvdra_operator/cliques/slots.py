"""Slots of a clique: which index each node has. Pure; the heart of what must never go wrong.

An index is part of a daemon's host name: two daemons with one index, or a daemon whose index
changes under it, break the domain's memory sharing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nvdra_api.names import ANNOTATION_RESERVATIONS
from nvdra_operator.domains.scene import annotations_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from nvdra_kube.api import Body
    from nvdra_operator.cliques.members import Member


@dataclass(frozen=True, slots=True)
class Slot:
    """A node's place in the clique; `pod_uid` is the daemon that had it last."""

    index: int
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class Reserved:
    """Slots by node; `overflow` are nodes for which there was none left; `suspects` are nodes whose
    daemon seems to be gone: once that is certain, their slots are free."""

    slots: Mapping[str, Slot]
    overflow: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()


def reserve(
    slots: Mapping[str, Slot],
    members: Iterable[Member],
    *,
    joined: Collection[str],
    gone: Collection[str],
    limit: int,
) -> Reserved:
    """Give each member a slot: the one that its node has, else the lowest that is free.

    `joined` are the nodes that bear the domain's label: they keep their slots also while their
    daemon is replaced. `gone` are nodes on which a live read found no daemon any more.
    """
    members = tuple(members)
    here = {member.node: member for member in members}
    kept: dict[str, Slot] = {}
    suspects = []
    for node, slot in sorted(_sound(slots).items(), key=lambda item: item[1].index):
        if node in here:
            kept[node] = replace(slot, pod_uid=here[node].pod_uid)
        elif node in joined:
            kept[node] = slot
        elif node not in gone:
            kept[node] = slot
            suspects.append(node)
    free = _free(kept.values(), limit)
    overflow = []
    for member in members:
        if member.node in kept:
            continue
        index = next(free, None)
        if index is None:
            overflow.append(member.node)
        else:
            kept[member.node] = Slot(index, member.pod_uid)
    return Reserved(kept, tuple(overflow), tuple(suspects))


def read_slots(clique: Body) -> dict[str, Slot]:
    """The slots that a clique object records, in its annotation or in its entries.

    What is malformed is left out: its node gets a slot like a new one.
    """
    slots: dict[str, Slot] = {}
    for entry in clique.get("daemons") or ():
        node, index = entry.get("nodeName"), entry.get("index")
        if node and isinstance(index, int):
            slots[node] = Slot(index)
    try:
        recorded = json.loads(annotations_of(clique).get(ANNOTATION_RESERVATIONS) or "{}")
    except ValueError:
        return slots
    for node, record in recorded.items() if isinstance(recorded, dict) else ():
        index = record.get("index") if isinstance(record, dict) else None
        if isinstance(index, int) and not isinstance(index, bool):
            slots[node] = Slot(index, str(record.get("podUID") or ""))
    return slots


def write_slots(slots: Mapping[str, Slot]) -> str:
    """The annotation's value; the same slots always give the same text."""
    records = {
        node: {"index": slot.index, "podUID": slot.pod_uid} for node, slot in sorted(slots.items())
    }
    return json.dumps(records, separators=(",", ":"))


def _sound(slots: Mapping[str, Slot]) -> dict[str, Slot]:
    """Slots as they may be: no index twice, none negative. Of two the first by name stays."""
    taken: set[int] = set()
    sound = {}
    for node, slot in sorted(slots.items()):
        if slot.index >= 0 and slot.index not in taken:
            taken.add(slot.index)
            sound[node] = slot
    return sound


def _free(kept: Iterable[Slot], limit: int) -> Iterator[int]:
    taken = {slot.index for slot in kept}
    return (index for index in range(limit) if index not in taken)
