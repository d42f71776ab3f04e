"""Gives devices back: a claim loses pods that are done, its allocation, and its protection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import PODS, RESOURCE_CLAIMS
from nvdra_sim.cluster.controllers.ownership import controller_of, is_dying, uid_of
from nvdra_sim.cluster.controllers.workqueue import WorkQueue
from nvdra_sim.cluster.scheduler.binding import FINALIZER
from nvdra_sim.cluster.scheduler.podclaims import claim_sources, is_done

if TYPE_CHECKING:
    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.informer import Change, Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers


class ResourceClaims:
    """Keyed by claim."""

    def __init__(self, api: KubeApi, informers: SharedInformers) -> None:
        self._api = api
        self._pods = informers.of(PODS)
        self._claims = informers.of(RESOURCE_CLAIMS)
        self.queue = WorkQueue("resource claims", self.reconcile)
        self._claims.subscribe(lambda change: self.queue.add(change.key))
        self._pods.subscribe(self._pod_changed)

    def _pod_changed(self, change: Change) -> None:
        if change.type == "deleted" or is_done(change.object):
            for source in claim_sources(change.object):
                if source.claim:
                    self.queue.add((change.key[0], source.claim))

    async def reconcile(self, key: Key) -> None:
        claim = self._claims.items.get(key)
        if claim is None or not await self._needs_work(claim):
            return
        namespace, name = key
        claim = await self._api.get(RESOURCE_CLAIMS, name, namespace=namespace)
        claim = await self._release(claim)
        if not is_dying(claim) and await self._is_orphan(claim):
            await self._api.delete(RESOURCE_CLAIMS, name, namespace=namespace, uid=uid_of(claim))

    async def _needs_work(self, claim: Body) -> bool:
        users = _users(claim)
        if len(await self._remaining(claim)) < len(users):
            return True
        if is_dying(claim) and not users:
            return True
        return not is_dying(claim) and await self._is_orphan(claim)

    async def _release(self, claim: Body) -> Body:
        """Write what is left of the reservations; without any, the allocation goes too."""
        users, left = _users(claim), await self._remaining(claim)
        done = not left and (bool(users) or is_dying(claim))
        if len(left) < len(users) or (done and (claim.get("status") or {}).get("allocation")):
            claim["status"] = {**claim["status"], "reservedFor": left} if left else {}
            claim = await self._api.update(RESOURCE_CLAIMS, claim, subresource="status")
        finalizers = claim["metadata"].get("finalizers") or []
        if done and FINALIZER in finalizers:
            claim["metadata"]["finalizers"] = [f for f in finalizers if f != FINALIZER]
            claim = await self._api.update(RESOURCE_CLAIMS, claim)
        return claim

    async def _remaining(self, claim: Body) -> list[Body]:
        """Users that are not pods are not ours to judge."""
        namespace = claim["metadata"]["namespace"]
        return [
            user
            for user in _users(claim)
            if user.get("resource") != "pods"
            or user.get("apiGroup")
            or await self._is_live(namespace, user["name"], user["uid"])
        ]

    async def _is_orphan(self, claim: Body) -> bool:
        """Whether the claim was made for a pod that is done."""
        owner = controller_of(claim)
        if owner is None or owner.get("kind") != PODS.kind:
            return False
        namespace = claim["metadata"]["namespace"]
        return not await self._is_live(namespace, owner["name"], owner["uid"])

    async def _is_live(self, namespace: str, name: str, uid: str) -> bool:
        pod = self._pods.items.get((namespace, name))
        if pod is None or uid_of(pod) != uid:
            # The informer may not have seen the pod yet.
            try:
                pod = await self._api.get(PODS, name, namespace=namespace)
            except NotFound:
                return False
        return uid_of(pod) == uid and not is_done(pod)


def _users(claim: Body) -> list[Body]:
    users: list[Body] = (claim.get("status") or {}).get("reservedFor") or []
    return users
