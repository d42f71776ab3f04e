"""Carries out plans: the awaits, and what an answer of the server means for a domain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_api.names import ANNOTATION_PROTOCOL
from nvdra_kube.errors import AlreadyExists, Conflict, Invalid, NotFound
from nvdra_kube.resources import RESOURCE_CLAIM_TEMPLATES
from nvdra_operator.domains.actions import Create, Delete, Patch, Replace
from nvdra_operator.domains.plan import includes
from nvdra_operator.domains.scene import Obstacle, annotations_of, domain_of

if TYPE_CHECKING:
    from nvdra_kube.api import Body, KubeApi
    from nvdra_operator.domains.actions import Action, Plan
    from nvdra_operator.domains.expectations import Expectations

log = structlog.get_logger(__name__)

# Enough to keep a server busy; a thousand nodes at once would only fill its queues.
CONCURRENT_WRITES: Final = 32


class Executor:
    """Shared by all domains, so that together they write no more than this much at a time."""

    def __init__(self, api: KubeApi, *, concurrent: int = CONCURRENT_WRITES) -> None:
        self._api = api
        self._slots = asyncio.Semaphore(concurrent)

    async def carry_out(
        self, plan: Plan, *, uid: str, expectations: Expectations
    ) -> tuple[Obstacle, ...]:
        """Do the stages in order. Returns what stood in the way.

        All actions of a stage are tried; then the first error (`ApiError`) of them is raised.
        """
        found: list[Obstacle] = []
        for stage in plan.stages:
            results = await asyncio.gather(
                *(self._act(action, uid, expectations) for action in stage),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                if result is not None:
                    found.append(result)
        return tuple(found)

    async def _act(self, action: Action, uid: str, expectations: Expectations) -> Obstacle | None:
        async with self._slots:
            log.debug("acting", action=type(action).__name__, on=_target(action), why=action.why)
            if isinstance(action, Create):
                return await self._create(action, uid, expectations)
            if isinstance(action, Replace):
                body = await self._api.update(action.resource, action.body)
                expectations.wrote(action.resource, body, now_s=_now_s())
            elif isinstance(action, Patch):
                await self._patch(action, expectations)
            else:
                await self._delete(action, expectations)
        return None

    async def _create(
        self, action: Create, uid: str, expectations: Expectations
    ) -> Obstacle | None:
        meta = action.body["metadata"]
        try:
            body = await self._api.create(action.resource, action.body, namespace=meta["namespace"])
        except AlreadyExists:
            return await self._look_who_is_there(action, uid, expectations)
        log.info("object made", object=_target(action), domain=uid)
        expectations.wrote(action.resource, body, now_s=_now_s(), created=True)
        if action.resource == RESOURCE_CLAIM_TEMPLATES and not includes(
            body, {"spec": action.body["spec"]}
        ):
            # Its spec cannot be mended: another one would come out the same, again and again.
            return Obstacle(action.resource.kind, meta["namespace"], meta["name"], "", altered=True)
        return None

    async def _look_who_is_there(
        self, action: Create, uid: str, expectations: Expectations
    ) -> Obstacle | None:
        meta = action.body["metadata"]
        try:
            found = await self._api.get(action.resource, meta["name"], namespace=meta["namespace"])
        except NotFound:
            return None  # gone by now; the next turn makes ours
        if domain_of(found) == uid:
            expectations.wrote(action.resource, found, now_s=_now_s(), created=True)
            return None
        if _was_ours(found, action.body):
            patch = {"metadata": {"uid": found["metadata"]["uid"], "labels": meta["labels"]}}
            found = await self._api.patch(
                action.resource, meta["name"], patch, namespace=meta["namespace"]
            )
            expectations.wrote(action.resource, found, now_s=_now_s(), created=True)
            return None
        return Obstacle(action.resource.kind, meta["namespace"], meta["name"], _owner(found))

    async def _patch(self, action: Patch, expectations: Expectations) -> None:
        try:
            body = await self._api.patch(
                action.resource,
                action.name,
                action.patch,
                namespace=action.namespace or None,
                patch_type=action.patch_type,
            )
        except NotFound:
            return
        except Invalid:
            if not action.tested:
                raise
            log.debug("nothing to patch any more", object=_target(action))
            return
        expectations.wrote(action.resource, body, now_s=_now_s())

    async def _delete(self, action: Delete, expectations: Expectations) -> None:
        key = (action.namespace, action.name)
        try:
            await self._api.delete(
                action.resource, action.name, namespace=action.namespace or None, uid=action.uid
            )
        except NotFound:
            pass
        except Conflict:
            log.debug("another object has the name now", object=_target(action))
        expectations.removed(action.resource, key, uid=action.uid, now_s=_now_s())


def _was_ours(found: Body, wanted: Body) -> bool:
    """Whether a person took the label off an object of this domain, or put another one on, even
    that of another domain: its name and content tell."""
    return domain_of(found) != domain_of(wanted) and _names_domain(found, wanted)


def _names_domain(found: Body, wanted: Body) -> bool:
    """Claim templates carry the domain's UID in their config, DaemonSets in their selector; cliques
    have it in their name, and our mark."""
    have, want = found.get("spec") or {}, wanted.get("spec") or {}
    if not want:
        return ANNOTATION_PROTOCOL in annotations_of(found)
    if "selector" in want:
        return bool(have.get("selector") == want["selector"])
    return _configs(have) == _configs(want) != []


def _configs(spec: Body) -> list[object]:
    devices = (spec.get("spec") or {}).get("devices") or {}
    return [(one.get("opaque") or {}).get("parameters") for one in devices.get("config") or ()]


def _owner(found: Body) -> str:
    if uid := domain_of(found):
        return f"ComputeDomain {uid}"
    references = found["metadata"].get("ownerReferences") or ()
    named = [f"{one.get('kind')} {one.get('name')}" for one in references]
    return ", ".join(named) or "somebody else"


def _target(action: Action) -> str:
    if isinstance(action, Create | Replace):
        meta = action.body["metadata"]
        return f"{action.resource.kind} {meta.get('namespace')}/{meta.get('name')}"
    return f"{action.resource.kind} {action.namespace}/{action.name}"


def _now_s() -> float:
    return asyncio.get_running_loop().time()
