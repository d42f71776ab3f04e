"""Decides from the node agent's files whether and with what `nvidia-imex` has to run.

Pure: the daemon asks again whenever a file changed, and acts on the difference to what runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from nvdra_nodeagent.imex import rendering
from nvdra_nodeagent.imex.inputs import MODE_DNS, MODE_IP

if TYPE_CHECKING:
    from nvdra_nodeagent.imex.inputs import Peers, Settings

NO_SETTINGS: Final = "NoSettings"
STALE_SETTINGS: Final = "StaleSettings"
SUPERSEDED: Final = "Superseded"
NO_FABRIC: Final = "NoFabric"
NO_PEERS: Final = "NoPeers"
NO_OWN_ENTRY: Final = "WaitingForOwnEntry"
NO_QUORUM: Final = "WaitingForNodes"


class Identity(NamedTuple):
    """What the container was started as; empty where its environment does not say."""

    domain: str = ""
    clique: str | None = None
    claim_uid: str = ""
    boot_id: str = ""
    address: str = ""


class Launch(NamedTuple):
    """What `nvidia-imex` reads once: a change of it takes a restart."""

    own_index: int
    config: str
    nodes: str


class Run(NamedTuple):
    """`nvidia-imex` has to run with this. `slots` (address, name) may change while it runs.

    `positions` are the lines of the nodes file that belong to somebody, with the clique's index.
    """

    launch: Launch
    slots: tuple[tuple[str, str], ...]
    positions: tuple[tuple[int, int], ...]
    generation: int


class Stay(NamedTuple):
    """Nothing new to go by: what runs keeps running, what does not is not started."""

    reason: str
    detail: str = ""


class Halt(NamedTuple):
    """`nvidia-imex` must not run. `idle` means that it is not needed either: that is readiness."""

    reason: str
    detail: str = ""
    idle: bool = False


Desire: TypeAlias = Run | Stay | Halt


def doubt(settings: Settings, identity: Identity, *, accepted: bool) -> Halt | None:
    """Why these settings are not this container's, where they are not.

    An earlier claim of the domain on this node, or the same one before a reboot, may have left
    them; a later claim may have replaced them (`accepted`: there were good ones before) while this
    container is still ending.
    """
    for what, found, own in (
        ("claim", settings.claim_uid, identity.claim_uid),
        ("boot", settings.boot_id, identity.boot_id),
        ("domain", settings.domain, identity.domain),
        ("clique", settings.clique, identity.clique),
    ):
        if own and found and found != own:
            reason = SUPERSEDED if accepted else STALE_SETTINGS
            return Halt(reason, f"settings.json is of {what} {found}, this daemon of {own}")
    return None


def desire(
    settings: Settings, peers: Peers | None, *, identity: Identity, nodes_path: str
) -> Desire:
    """What has to run by settings that are beyond doubt and the last usable list of peers."""
    if not settings.clique:
        return Halt(NO_FABRIC, "the node is in no NVLink clique", idle=True)
    if peers is None:
        return Stay(NO_PEERS, "the node agent has not written peers.json yet")
    own = peers.own()
    if own is None or own.node != settings.node:
        return Stay(NO_OWN_ENTRY, f"{settings.node} has no entry in the clique yet")
    if identity.address and own.ip != identity.address:
        # The entry of the pod that was here before: no name would lead to this one.
        return Stay(NO_OWN_ENTRY, f"the entry says {own.ip}, the pod's address is not that yet")
    if settings.mode == MODE_IP and peers.total < settings.num_nodes:
        return Stay(NO_QUORUM, f"{peers.total} of {settings.num_nodes} nodes are there")
    launch = Launch(
        own.slot,
        rendering.config_file(settings, address=own.ip, nodes_path=nodes_path),
        rendering.nodes_file(settings, peers.entries),
    )
    named = settings.mode == MODE_DNS
    return Run(
        launch,
        rendering.slots(settings, peers.entries) if named else (),
        tuple((peer.slot if named else line, peer.slot) for line, peer in enumerate(peers.entries)),
        peers.generation,
    )
