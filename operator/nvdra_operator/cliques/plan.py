"""From the members of a domain to its ComputeDomainCliques and the labels of its pods. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from nvdra_api.domains import NOT_READY, READY
from nvdra_api.names import (
    ANNOTATION_PROTOCOL,
    ANNOTATION_RESERVATIONS,
    LABEL_CLIQUE_ID,
    LABEL_COMPUTE_DOMAIN,
    PROTOCOL_VERSION,
    clique_name,
)
from nvdra_kube.resources import PODS
from nvdra_operator.cliques.slots import Slot, read_slots, reserve, write_slots
from nvdra_operator.domains.actions import Action, Create, Delete, Patch, Replace
from nvdra_operator.domains.scene import is_dying, labels_of
from nvdra_operator.resources import CLIQUES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from nvdra_kube.api import Body
    from nvdra_operator.cliques.members import Member
    from nvdra_operator.domains.scene import Scene
    from nvdra_operator.settings import DriverSettings

Seat: TypeAlias = tuple[str, str]
"""A clique and a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What a domain's cliques have to be. `entries` as `status.nodes` shows them, by node name;
    `overflow` are nodes beyond the limit of their clique, `unknown` nodes that never said which
    clique they are in, `suspects` (clique, node) whose daemon's end has to be confirmed. `slots`
    is what was given to whom, to be remembered in case that an object is deleted by hand."""

    actions: tuple[Action, ...] = ()
    entries: tuple[Body, ...] = ()
    overflow: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    without_fabric: tuple[str, ...] = ()
    suspects: tuple[Seat, ...] = ()
    cliques: tuple[str, ...] = ()
    slots: Mapping[str, Mapping[str, Slot]] = field(default_factory=dict)


@dataclass(slots=True)
class _Draft:
    actions: list[Action] = field(default_factory=list)
    entries: list[Body] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    suspects: list[Seat] = field(default_factory=list)
    slots: dict[str, Mapping[str, Slot]] = field(default_factory=dict)


def plan_members(
    scene: Scene,
    members: Iterable[Member],
    settings: DriverSettings,
    *,
    gone: Collection[Seat] = (),
    remembered: Mapping[str, Mapping[str, Slot]] | None = None,
) -> Membership:
    """Cliques, or without them the entries of `status.nodes`, and the labels of pods.

    `gone` are the seats on which a live read found no daemon any more. `remembered` are the slots
    of the last plan: a clique that was deleted by hand comes back as it was.
    """
    members = tuple(members)
    joined = {node["metadata"]["name"] for node in scene.nodes}
    known = {**(remembered or {}), **_known_slots(scene, settings)}
    by_clique: dict[str, list[Member]] = {clique: [] for clique in known}
    for member in members:
        if member.clique:
            by_clique.setdefault(member.clique, []).append(member)
    draft = _Draft(actions=[_label(member) for member in members if _needs_label(member)])
    for clique, its_members in sorted(by_clique.items()):
        elsewhere = {one.node for one in members if one.clique not in (None, clique)}
        reserved = reserve(
            known.get(clique, {}),
            its_members,
            joined=joined - elsewhere,
            gone={node for of, node in gone if of == clique},
            limit=scene.limit(settings.max_nodes),
        )
        draft.overflow += reserved.overflow
        draft.suspects += [(clique, node) for node in reserved.suspects]
        if reserved.slots:
            draft.slots[clique] = reserved.slots
        entries = _entries(clique, reserved.slots, its_members, _old_entries(scene, clique))
        draft.entries += [_as_node(entry) for entry in entries]
        if settings.uses_cliques:
            draft.actions += _write(scene, clique, reserved.slots, entries, settings)
    outside = [member for member in members if member.clique == ""]
    draft.entries += [_outside(member) for member in outside if member.ip]
    return Membership(
        actions=tuple(draft.actions),
        entries=tuple(sorted(draft.entries, key=lambda entry: str(entry["name"]))),
        overflow=tuple(draft.overflow),
        unknown=tuple(member.node for member in members if member.clique is None),
        without_fabric=tuple(member.node for member in outside),
        suspects=tuple(draft.suspects),
        cliques=tuple(sorted(clique for clique, its in by_clique.items() if its)),
        slots=draft.slots,
    )


def observed_members(scene: Scene, members: Iterable[Member]) -> Membership:
    """For domains whose daemons write the members themselves: only look.

    Daemons of the earlier driver label their pods, an empty label meaning no fabric.
    """
    members = tuple(members)
    entries: dict[str, Body] = {}
    addresses = {member.ip for member in members if member.clique}
    for entry in (scene.domain.get("status") or {}).get("nodes") or ():
        if entry.get("cliqueID") and entry.get("ipAddress") in addresses:
            entries[entry["name"]] = entry
    for member in members:
        if member.clique == "" and member.ip:
            entries[member.node] = _outside(member)
    here = {member.node: member for member in members}
    for clique in scene.cliques:
        for daemon in clique.get("daemons") or ():
            name = daemon["nodeName"]
            entries[name] = _as_node(_confirmed(daemon, here.get(name)))
    return Membership(
        entries=tuple(entries[name] for name in sorted(entries)),
        without_fabric=tuple(member.node for member in members if member.clique == ""),
        cliques=tuple(sorted({str(one["cliqueID"]) for one in entries.values()} - {""})),
    )


def _confirmed(daemon: Body, member: Member | None) -> Body:
    """A daemon says itself that it is ready; one whose node died cannot take that back."""
    if member is not None and member.ready:
        return daemon
    return {**daemon, "status": NOT_READY}


def _known_slots(scene: Scene, settings: DriverSettings) -> dict[str, dict[str, Slot]]:
    if settings.uses_cliques:
        return {
            labels_of(body).get(LABEL_CLIQUE_ID, ""): read_slots(body)
            for body in scene.cliques
            if not is_dying(body)
        }
    known: dict[str, dict[str, Slot]] = {}
    for entry in (scene.domain.get("status") or {}).get("nodes") or ():
        clique, index = entry.get("cliqueID"), entry.get("index")
        if clique and isinstance(index, int):
            known.setdefault(clique, {})[entry["name"]] = Slot(index)
    return known


def _old_entries(scene: Scene, clique: str) -> dict[str, Body]:
    for body in scene.cliques:
        if labels_of(body).get(LABEL_CLIQUE_ID) == clique:
            return {entry["nodeName"]: entry for entry in body.get("daemons") or ()}
    return {
        entry["name"]: {**_without(entry, "name"), "nodeName": entry["name"]}
        for entry in (scene.domain.get("status") or {}).get("nodes") or ()
        if entry.get("cliqueID") == clique
    }


def _entries(
    clique: str, slots: Mapping[str, Slot], members: Iterable[Member], old: Mapping[str, Body]
) -> list[Body]:
    """Entries in the order of their slots. A node without an address has none yet."""
    here = {member.node: member for member in members}
    entries = []
    for node, slot in sorted(slots.items(), key=lambda item: item[1].index):
        member = here.get(node)
        address = (member.ip if member else "") or old.get(node, {}).get("ipAddress") or ""
        if address:
            ready = member is not None and member.ready and bool(member.ip)
            entries.append(
                {
                    "nodeName": node,
                    "ipAddress": address,
                    "cliqueID": clique,
                    "index": slot.index,
                    "status": READY if ready else NOT_READY,
                }
            )
    return entries


def _write(
    scene: Scene,
    clique: str,
    slots: Mapping[str, Slot],
    entries: list[Body],
    settings: DriverSettings,
) -> list[Action]:
    found = next(
        (body for body in scene.cliques if labels_of(body).get(LABEL_CLIQUE_ID) == clique), None
    )
    name = clique_name(scene.uid, clique)
    if found is not None and is_dying(found):
        return []
    if not slots:
        return [] if found is None else [_remove(found)]
    annotations = {
        ANNOTATION_PROTOCOL: PROTOCOL_VERSION,
        ANNOTATION_RESERVATIONS: write_slots(slots),
    }
    labels = {LABEL_COMPUTE_DOMAIN: scene.uid, LABEL_CLIQUE_ID: clique}
    if found is None:
        meta = {"name": name, "namespace": settings.namespace}
        body = _clique(meta, labels, annotations, entries)
        return [Create(resource=CLIQUES, body=body, why="the first daemon of the clique")]
    wanted = _clique(found["metadata"], labels, annotations, entries)
    if wanted["metadata"] == found["metadata"] and entries == (found.get("daemons") or []):
        return []
    return [Replace(resource=CLIQUES, body=wanted, why="members changed")]


def _clique(
    meta: Body, labels: dict[str, str], annotations: dict[str, str], entries: list[Body]
) -> Body:
    metadata = {
        # Owners are pods of earlier daemons: the clique must not go with them.
        **_without(meta, "ownerReferences"),
        "labels": {**(meta.get("labels") or {}), **labels},
        "annotations": {**(meta.get("annotations") or {}), **annotations},
    }
    return {
        "apiVersion": CLIQUES.api_version,
        "kind": CLIQUES.kind,
        "metadata": metadata,
        "daemons": entries,
    }


def _remove(clique: Body) -> Delete:
    meta = clique["metadata"]
    return Delete(
        resource=CLIQUES,
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        why="nobody is in the clique any more",
    )


def _needs_label(member: Member) -> bool:
    return member.clique is not None and not member.labelled


def _label(member: Member) -> Patch:
    patch: dict[str, Any] = {
        "metadata": {"uid": member.pod_uid, "labels": {LABEL_CLIQUE_ID: member.clique}}
    }
    return Patch(
        resource=PODS,
        name=member.pod,
        namespace=member.namespace,
        patch=patch,
        why="the pod's clique is known",
    )


def _as_node(entry: Body) -> Body:
    return {"name": entry["nodeName"], **_without(entry, "nodeName")}


def _outside(member: Member) -> Body:
    """An entry for a node without a fabric: it has no slot."""
    return {
        "name": member.node,
        "ipAddress": member.ip,
        "cliqueID": "",
        "index": -1,
        "status": READY if member.ready else NOT_READY,
    }


def _without(body: Body, name: str) -> Body:
    return {key: value for key, value in body.items() if key != name}
