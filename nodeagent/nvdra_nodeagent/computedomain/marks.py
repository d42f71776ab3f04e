"""The node's own object: its label says which domain it is in, an annotation which clique."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from nvdra_api.names import ANNOTATION_NODE_CLIQUE, LABEL_COMPUTE_DOMAIN
from nvdra_kube.errors import Conflict, NotFound
from nvdra_kube.resources import NODES
from nvdra_nodeagent.computedomain.asking import asked
from nvdra_nodeagent.errors import NodeFault, Retryable

if TYPE_CHECKING:
    from nvdra_kube.api import Body, KubeApi
    from nvdra_nodeagent.computedomain.asking import LoopCaller

log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 5


class NodeObject:
    """`NodeMarks` by one patch each, which fails when anybody has written the node since."""

    def __init__(self, api: KubeApi, *, node: str, loop: LoopCaller) -> None:
        self._api = api
        self._node = node
        self._loop = loop

    def put(self, domain: str, clique: str) -> None:
        """From a worker thread, as all of these."""
        self._loop.call(lambda: self._put(domain, clique))

    def is_put(self, domain: str, clique: str) -> bool:
        node = self._loop.call(self._get)
        return (_label(node), _annotation(node)) == (domain, clique)

    def remove(self, domain: str) -> None:
        self._loop.call(lambda: self._remove(domain))

    def remove_unless(self, domains: set[str]) -> None:
        self._loop.call(lambda: self._remove_unless(domains))

    async def _put(self, domain: str, clique: str) -> None:
        for _ in range(_ATTEMPTS):
            node = await self._get()
            current = _label(node)
            if current and current != domain:
                raise _taken(self._node, current)
            if current == domain and _annotation(node) == clique:
                return
            if await self._patch(node, domain, clique):
                log.info("node joined domain", domain=domain, clique=clique)
                return
        raise _contended(self._node)

    async def _remove(self, domain: str) -> None:
        for _ in range(_ATTEMPTS):
            try:
                node = await self._get()
            except NodeFault:
                return  # it went, and its label with it
            if _label(node) != domain:
                return
            if await self._patch(node, None, None):
                log.info("node left domain", domain=domain)
                return
        raise _contended(self._node)

    async def _remove_unless(self, domains: set[str]) -> None:
        try:
            current = _label(await self._get())
        except NodeFault:
            return
        if current and current not in domains:
            await self._remove(current)

    async def _get(self) -> Body:
        try:
            return await asked(f"GET Node {self._node}", self._api.get(NODES, self._node))
        except NotFound as error:
            hint = "the kubelet registers it; check --node-name"
            raise NodeFault("NodeNotFound", f"Node {self._node}: {error}", hint=hint) from error

    async def _patch(self, node: Body, domain: str | None, clique: str | None) -> bool:
        """False when somebody else was first."""
        patch = {
            "metadata": {
                "resourceVersion": node["metadata"]["resourceVersion"],
                "labels": {LABEL_COMPUTE_DOMAIN: domain},
                "annotations": {ANNOTATION_NODE_CLIQUE: clique},
            }
        }
        try:
            await asked(f"PATCH Node {self._node}", self._api.patch(NODES, self._node, patch))
        except (Conflict, NotFound):
            return False
        return True


def _label(node: Body) -> str:
    return (node["metadata"].get("labels") or {}).get(LABEL_COMPUTE_DOMAIN) or ""


def _annotation(node: Body) -> str | None:
    found: str | None = (node["metadata"].get("annotations") or {}).get(ANNOTATION_NODE_CLIQUE)
    return found


def _taken(node: str, current: str) -> Retryable:
    return Retryable(
        "NodeInOtherDomain",
        f"node {node} is in ComputeDomain {current}, and can be in one only",
        hint="it leaves when the last pod of that domain has ended on it",
    )


def _contended(node: str) -> Retryable:
    return Retryable("ApiUnavailable", f"PATCH Node {node}: others write it all the time")
