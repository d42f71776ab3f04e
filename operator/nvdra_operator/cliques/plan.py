"""From the members of a domain to its ComputeDomainCliques and the labels of its pods. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nvdra_api.names import LABEL_CLIQUE_ID
from nvdra_kube.resources import PODS
from nvdra_operator.cliques.membership import Membership, node_entry, outside_entry, without
from nvdra_operator.cliques.objects import clique_entries, keep_clique
from nvdra_operator.cliques.slots import Slot, read_slots, reserve
from nvdra_operator.domains.actions import Action, Delete, Patch
from nvdra_operator.domains.scene import is_dying, labels_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from nvdra_kube.api import Body
    from nvdra_operator.cliques.members import Member
    from nvdra_operator.cliques.membership import Seat
    from nvdra_operator.cliques.slots import Reserved
    from nvdra_operator.domains.scene import Scene
    from nvdra_operator.settings import DriverSettings


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
    of the last plan: a clique that was deleted by hand comes back as it was, and the status, which
    has one entry for each node, has no place for a slot in a clique that a node has left.
    """
    draft = _Draft(tuple(members))
    draft.actions += [_label(member) for member in draft.members if _needs_label(member)]
    draft.actions += [_end(member) for member in draft.members if member.moved]
    known = _known_slots(scene, settings)
    for clique, slots in (remembered or {}).items():
        known[clique] = {**slots, **known.get(clique, {})}
    for clique in sorted({*known, *draft.cliques}):
        here = draft.cliques.get(clique, [])
        reserved = reserve(
            known.get(clique, {}),
            here,
            joined=_joined(scene, clique, draft.members),
            gone={node for of, node in gone if of == clique},
            limit=scene.limit(settings.max_nodes),
        )
        draft.seat(clique, reserved)
        entries = clique_entries(clique, reserved.slots, here, _old_entries(scene, clique))
        draft.entries += map(node_entry, entries)
        if scene.uses_cliques(settings.uses_cliques):
            draft.actions += keep_clique(scene, clique, reserved.slots, entries, settings)
    return draft.finished()


@dataclass(slots=True)
class _Draft:
    """A `Membership` that grows clique by clique."""

    members: tuple[Member, ...]
    cliques: dict[str, list[Member]] = field(init=False, default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    entries: list[Body] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    suspects: list[Seat] = field(default_factory=list)
    slots: dict[str, Mapping[str, Slot]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for member in self.members:
            if member.clique:
                self.cliques.setdefault(member.clique, []).append(member)

    def seat(self, clique: str, reserved: Reserved) -> None:
        self.overflow += reserved.overflow
        self.suspects += [(clique, node) for node in reserved.suspects]
        if reserved.slots:
            self.slots[clique] = reserved.slots

    def finished(self) -> Membership:
        outside = [member for member in self.members if member.clique == ""]
        entries = [*self.entries, *(outside_entry(member) for member in outside if member.ip)]
        return Membership(
            actions=tuple(self.actions),
            entries=_one_for_each_node(entries, self.members),
            overflow=tuple(self.overflow),
            unknown=tuple(member.node for member in self.members if member.clique is None),
            without_fabric=tuple(member.node for member in outside),
            suspects=tuple(self.suspects),
            cliques=tuple(sorted(self.cliques)),
            slots=self.slots,
        )


def _one_for_each_node(entries: Iterable[Body], members: Iterable[Member]) -> tuple[Body, ...]:
    """By name, as `status.nodes` allows no other: of two that in the clique where it is now."""
    now = {member.node: member.clique for member in members}
    chosen: dict[str, Body] = {}
    for entry in entries:
        name = str(entry["name"])
        if name not in chosen or entry["cliqueID"] == now.get(name):
            chosen[name] = entry
    return tuple(chosen[name] for name in sorted(chosen))


def _joined(scene: Scene, clique: str, members: Iterable[Member]) -> set[str]:
    """Nodes that bear the domain's label, but for those that are in another clique by now."""
    elsewhere = {one.node for one in members if one.clique not in (None, clique)}
    return {node["metadata"]["name"] for node in scene.nodes} - elsewhere


def _known_slots(scene: Scene, settings: DriverSettings) -> dict[str, dict[str, Slot]]:
    if scene.uses_cliques(settings.uses_cliques):
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
        entry["name"]: {**without(entry, "name"), "nodeName": entry["name"]}
        for entry in (scene.domain.get("status") or {}).get("nodes") or ()
        if entry.get("cliqueID") == clique
    }


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


def _end(member: Member) -> Delete:
    """The next daemon of the node starts in the clique where the node is now; workloads there wait
    for it."""
    return Delete(
        resource=PODS,
        name=member.pod,
        namespace=member.namespace,
        uid=member.pod_uid,
        why="its node is in another clique by now",
    )
