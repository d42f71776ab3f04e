"""ComputeDomainCliques as they have to be, and the writes that make them so. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_api.domains import NOT_READY, READY
from nvdra_api.names import (
    ANNOTATION_PROTOCOL,
    ANNOTATION_RESERVATIONS,
    LABEL_CLIQUE_ID,
    LABEL_COMPUTE_DOMAIN,
    PROTOCOL_VERSION,
    clique_name,
)
from nvdra_operator.cliques.membership import without
from nvdra_operator.cliques.slots import write_slots
from nvdra_operator.domains.actions import Create, Delete, Replace
from nvdra_operator.domains.scene import is_dying, labels_of
from nvdra_operator.resources import CLIQUES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nvdra_kube.api import Body
    from nvdra_operator.cliques.members import Member
    from nvdra_operator.cliques.slots import Slot
    from nvdra_operator.domains.actions import Action
    from nvdra_operator.domains.scene import Scene
    from nvdra_operator.settings import DriverSettings


def clique_entries(
    clique: str, slots: Mapping[str, Slot], members: Iterable[Member], old: Mapping[str, Body]
) -> list[Body]:
    """Entries in the order of their slots. A node without an address has none yet; the last one of
    a daemon that is gone counts until another pod has it."""
    here = {member.node: member for member in members}
    taken = {member.ip for member in here.values()}
    entries = []
    for node, slot in sorted(slots.items(), key=lambda item: item[1].index):
        member = here.get(node)
        last = old.get(node, {}).get("ipAddress") or ""
        address = (member.ip if member else "") or ("" if last in taken else last)
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


def keep_clique(
    scene: Scene,
    clique: str,
    slots: Mapping[str, Slot],
    entries: list[Body],
    settings: DriverSettings,
) -> list[Action]:
    """Slots are remembered in annotations: the schema has no field for them. A clique lives as long
    as anybody has a slot in it."""
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
        if scene.is_blocked(body):
            return []
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
        **without(meta, "ownerReferences"),
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
