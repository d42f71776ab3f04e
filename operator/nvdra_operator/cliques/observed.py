"""Members of domains whose daemons are of the earlier driver: they write their entries themselves.

Such a daemon takes its entry away once, when it ends. One that could not, since its node died or
the write was refused, would stay in the list for ever and keep a slot: those entries are removed
here. Nothing else that daemons wrote is touched. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_api.domains import NOT_READY
from nvdra_operator.cliques.membership import Membership, node_entry, outside_entry, sits
from nvdra_operator.domains.actions import Replace
from nvdra_operator.domains.scene import is_dying
from nvdra_operator.resources import CLIQUES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from nvdra_kube.api import Body
    from nvdra_operator.cliques.members import Member
    from nvdra_operator.cliques.membership import Seat
    from nvdra_operator.domains.scene import Scene


def observed_members(
    scene: Scene, members: Iterable[Member], *, gone: Collection[Seat] = ()
) -> Membership:
    """Members as the daemons say they are, and what they left behind.

    `gone` are the seats on which a live read found no daemon any more.
    """
    members = tuple(members)
    here = {member.node: member for member in members}
    entries: dict[str, Body] = {}
    suspects: set[Seat] = set()
    for entry in _written(scene):
        seat = (str(entry.get("cliqueID") or ""), str(entry["name"]))
        if _seems_gone(scene, seat):
            suspects.add(seat)
        if seat not in gone:
            entries[seat[1]] = _confirmed(entry, here.get(seat[1]))
    for member in members:
        if member.clique == "" and member.ip:
            entries[member.node] = outside_entry(member)
    return Membership(
        actions=tuple(_pruned(scene, gone)),
        entries=tuple(entries[name] for name in sorted(entries)),
        without_fabric=tuple(member.node for member in members if member.clique == ""),
        suspects=tuple(sorted(suspects)),
        cliques=tuple(sorted({str(one["cliqueID"]) for one in entries.values()} - {""})),
    )


def _written(scene: Scene) -> Iterator[Body]:
    """Entries of daemons as `status.nodes` shows them; what cliques say comes last, and counts."""
    for entry in (scene.domain.get("status") or {}).get("nodes") or ():
        # The one without a clique was written by a controller, from the pod.
        if entry.get("cliqueID"):
            yield entry
    for clique in scene.cliques:
        yield from map(node_entry, clique.get("daemons") or ())


def _confirmed(entry: Body, member: Member | None) -> Body:
    """A daemon says itself that it is ready; one whose node died cannot take that back."""
    if member is not None and member.ready and member.ip in ("", entry.get("ipAddress")):
        return entry
    return {**entry, "status": NOT_READY}


def _seems_gone(scene: Scene, seat: Seat) -> bool:
    """A node that left, or does not exist any more, and that no daemon's pod is on."""
    if any(body["metadata"]["name"] == seat[1] for body in scene.nodes):
        return False
    return not any(sits(pod, seat) for pod in scene.pods)


def _pruned(scene: Scene, gone: Collection[Seat]) -> Iterator[Replace]:
    """Cliques without the entries of daemons that are gone. Others keep what they wrote: a clique
    that one of them wrote meanwhile is another version, and is looked at again."""
    for clique in scene.cliques:
        found = clique.get("daemons") or []
        left = [
            one for one in found if (str(one.get("cliqueID")), str(one["nodeName"])) not in gone
        ]
        if left != found and not is_dying(clique):
            why = "daemons are gone and left their entries"
            yield Replace(resource=CLIQUES, body={**clique, "daemons": left}, why=why)
