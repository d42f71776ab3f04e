"""What comes out of planning a domain's members, and how they appear in its status."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from nvdra_api.domains import NOT_READY, READY
from nvdra_api.names import LABEL_CLIQUE_ID
from nvdra_operator.domains.scene import labels_of, node_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import Body
    from nvdra_operator.cliques.members import Member
    from nvdra_operator.cliques.slots import Slot
    from nvdra_operator.domains.actions import Action

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


def node_entry(daemon: Body) -> Body:
    """An entry of a clique as `status.nodes` shows it."""
    return {"name": daemon["nodeName"], **without(daemon, "nodeName")}


def outside_entry(member: Member) -> Body:
    """An entry of `status.nodes` for a node without a fabric: it has no slot."""
    return {
        "name": member.node,
        "ipAddress": member.ip,
        "cliqueID": "",
        "index": -1,
        "status": READY if member.ready else NOT_READY,
    }


def sits(pod: Body, seat: Seat) -> bool:
    """Whether a daemon's pod has this seat; one without a label may be of any clique."""
    clique, node = seat
    return node_of(pod) == node and labels_of(pod).get(LABEL_CLIQUE_ID, clique) == clique


def without(body: Body, name: str) -> Body:
    return {key: value for key, value in body.items() if key != name}
