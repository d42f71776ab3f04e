"""`peers.json`: the members of a node's clique, as the controller wrote them, for its daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from nvdra_kube.api import Body
    from nvdra_nodeagent.computedomain.directories import DomainDirectories
    from nvdra_nodeagent.steps.domain_dir import DomainDirStep

log = structlog.get_logger(__name__)

_VERSION: Final = 1


def peers_of(body: Body, step: DomainDirStep, *, node: str) -> dict[str, Any]:
    """The file without its generation: the members of the node's clique, by index. Pure."""
    if step.members == "clique":
        entries = [(each, each.get("nodeName")) for each in body.get("daemons") or ()]
        total = len(entries)
    else:
        listed = (body.get("status") or {}).get("nodes") or ()
        entries = [
            (each, each.get("name")) for each in listed if each.get("cliqueID") == step.clique
        ]
        total = len(listed)
    peers = [
        {"node": name, "ip": each.get("ipAddress"), "index": each.get("index", 0)}
        for each, name in entries
        if name and each.get("ipAddress")
    ]
    own = next((peer["index"] for peer in peers if peer["node"] == node), None)
    peers.sort(key=lambda peer: (peer["index"], peer["node"]))
    return {"ownIndex": own, "peers": peers, "total": total}


class PeerFile:
    """Of one daemon's claim. Calls block."""

    def __init__(self, directories: DomainDirectories, step: DomainDirStep, *, node: str) -> None:
        self._directories = directories
        self._step = step
        self._node = node
        self._generation = 0

    def bring(self, body: Body) -> None:
        """Make the file say what `body` does, by what stands there: the file goes whenever the
        directory is made anew.

        :raises Retryable: the disk refuses.
        """
        said = self._directories.peers(self._step.domain)
        new = peers_of(body, self._step, node=self._node)
        last = said.get("generation")
        self._generation = max(self._generation, last if isinstance(last, int) else 0)
        if all(said.get(key) == value for key, value in new.items()):
            return
        document = {"version": _VERSION, "generation": self._generation + 1, **new}
        if not self._directories.write_peers(self._step, document):
            return
        self._generation += 1
        log.info(
            "peers written",
            domain=self._step.domain,
            generation=self._generation,
            own_index=new["ownIndex"],
            peers=len(new["peers"]),
        )
