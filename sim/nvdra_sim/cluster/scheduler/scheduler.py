"""The scheduler of the embedded cluster: one pod after the other, as soon as something changed.

Level-triggered: each round looks at all pending pods; nothing is remembered about them but what
they have been told. One allocation at a time is what makes it right, so there is no second worker.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, Conflict, NotFound
from nvdra_kube.events import EventRecorder
from nvdra_kube.informer import Informer
from nvdra_kube.resources import DEVICE_CLASSES, NODES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES
from nvdra_sim.cluster.scheduler.assumed import Assumed
from nvdra_sim.cluster.scheduler.binding import Binder
from nvdra_sim.cluster.scheduler.decision import Bind, Decision, Leave, Snapshot, decide
from nvdra_sim.cluster.scheduler.pools import gather_pools

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.informer import Change
    from nvdra_sim.cluster.scheduler.pools import Pool

_log = structlog.get_logger(__name__)

# How long a pod may wait for a controller before it is said on the pod.
_PATIENCE_S: Final = 1.0
_NAMES: Final = ("", "default-scheduler")


class Scheduler:
    """Binds pods that name no other scheduler. `run` belongs to a task of the owner."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._pods = Informer(api, PODS)
        self._nodes = Informer(api, NODES)
        self._claims = Informer(api, RESOURCE_CLAIMS)
        self._slices = Informer(api, RESOURCE_SLICES)
        self._classes = Informer(api, DEVICE_CLASSES)
        self._assumed_claims = Assumed(self._claims.items)
        self._binder = Binder(api, wrote=self._assumed_claims.remember)
        self._recorder = EventRecorder(api, component="default-scheduler", instance="nvdra")
        self._wake = asyncio.Event()
        self._backoff = Backoff(first_s=0.02, limit_s=2.0)
        self._pools: list[Pool] | None = None
        # By pod UID: pods bound by us that the informer still shows as pending; since when a pod
        # waits for a controller; what a pod was told last.
        self._bound: dict[str, str] = {}
        self._waiting: dict[str, float] = {}
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """Schedule until cancelled."""
        self._subscribe()
        async with self._recorder, asyncio.TaskGroup() as group:
            for informer in self._informers():
                group.create_task(informer.run(), name=f"scheduler: {informer!r}")
            for informer in self._informers():
                await informer.wait_synced()
            group.create_task(self._rounds(), name="scheduler: rounds")

    def _informers(self) -> tuple[Informer, ...]:
        return self._pods, self._nodes, self._claims, self._slices, self._classes

    def _subscribe(self) -> None:
        self._pods.subscribe(self._pod_changed)
        self._slices.subscribe(self._slice_changed)
        self._nodes.subscribe(self._node_changed)
        for informer in (self._claims, self._classes):
            informer.subscribe(lambda _: self._wake.set())

    def _pod_changed(self, change: Change) -> None:
        uid = change.object["metadata"]["uid"]
        if change.type == "deleted":
            for memory in (self._bound, self._waiting, self._told):
                memory.pop(uid, None)
        if (
            change.old is None
            or _pod_facts(change.old) != _pod_facts(change.object)
            or change.type == "deleted"
        ):
            self._wake.set()

    def _slice_changed(self, _: Change) -> None:
        self._pools = None
        self._wake.set()

    def _node_changed(self, change: Change) -> None:
        if (
            change.old is None
            or _node_facts(change.old) != _node_facts(change.object)
            or change.type == "deleted"
        ):
            self._wake.set()

    async def _rounds(self) -> None:
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            failed = False
            for pod in self._pending():
                failed = not await self._schedule(pod) or failed
            if failed:
                self._wake_after(self._backoff.failed())
            else:
                self._backoff.succeeded()

    def _wake_after(self, delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._wake.set)

    def _pending(self) -> list[Body]:
        """By priority, then age. A binding of ours counts until the informer shows it."""
        pods = [pod for pod in self._pods.items.values() if _is_pending(pod)]
        return sorted(
            (pod for pod in pods if pod["metadata"]["uid"] not in self._bound), key=_urgency
        )

    async def _schedule(self, pod: Body) -> bool:
        """Decide and act. False: try again soon."""
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        decision = await self._decide(pod, key)
        try:
            if isinstance(decision, Bind):
                await self._bind(pod, decision)
            else:
                await self._leave(pod, decision)
        except (Conflict, NotFound) as error:
            _log.debug("pod changed meanwhile", pod=key, error=str(error))
            return False
        except ApiError as error:
            _log.warning("pod not scheduled, will retry", pod=key, error=str(error))
            return False
        return True

    async def _decide(self, pod: Body, key: str) -> Decision:
        """A defect that one pod's claims lead to must not keep all others from being scheduled."""
        try:
            return await asyncio.to_thread(decide, pod, self._snapshot())
        except Exception as error:
            _log.exception("no decision about a pod", pod=key)
            return Leave(f"the scheduler failed: {type(error).__name__}: {error}")

    def _snapshot(self) -> Snapshot:
        if self._pools is None:
            self._pools = gather_pools(self._slices.items.values())
        return Snapshot(
            nodes=list(self._nodes.items.values()),
            pods=[
                {**pod, "spec": {**pod["spec"], "nodeName": node}}
                if (node := self._bound.get(pod["metadata"]["uid"]))
                else pod
                for pod in self._pods.items.values()
            ],
            claims=self._assumed_claims.current(),
            classes={name: body for (_, name), body in self._classes.items.items()},
            pools=self._pools,
        )

    async def _bind(self, pod: Body, decision: Bind) -> None:
        uid = pod["metadata"]["uid"]
        await self._binder.bind(pod, decision)
        self._bound[uid] = decision.node
        for memory in (self._waiting, self._told):
            memory.pop(uid, None)
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        _log.info("pod bound", pod=key, node=decision.node)
        note = f"Successfully assigned {key} to {decision.node}"
        await self._recorder.event(pod, type="Normal", reason="Scheduled", note=note)

    async def _leave(self, pod: Body, decision: Leave) -> None:
        uid = pod["metadata"]["uid"]
        if decision.waiting and not self._is_overdue(uid):
            return
        for claim in decision.release:
            await self._binder.release(claim)
        if self._told.get(uid) == decision.message:
            return
        await self._mark_unschedulable(pod, decision.message)
        self._told[uid] = decision.message
        await self._recorder.event(
            pod, type="Warning", reason="FailedScheduling", note=decision.message
        )

    def _is_overdue(self, uid: str) -> bool:
        now_s = asyncio.get_running_loop().time()
        if uid not in self._waiting:
            self._waiting[uid] = now_s
            self._wake_after(_PATIENCE_S)
        return now_s - self._waiting[uid] >= _PATIENCE_S

    async def _mark_unschedulable(self, pod: Body, message: str) -> None:
        metadata = pod["metadata"]
        fresh = await self._api.get(PODS, metadata["name"], namespace=metadata["namespace"])
        status = fresh.setdefault("status", {})
        others = [c for c in status.get("conditions") or [] if c["type"] != "PodScheduled"]
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        status["conditions"] = [*others, condition]
        await self._api.update(PODS, fresh, subresource="status")


def _is_pending(pod: Body) -> bool:
    spec, status = pod["spec"], pod.get("status") or {}
    return (
        not spec.get("nodeName")
        and not spec.get("schedulingGates")
        and not pod["metadata"].get("deletionTimestamp")
        and (spec.get("schedulerName") or "") in _NAMES
        and status.get("phase") not in ("Succeeded", "Failed")
    )


def _urgency(pod: Body) -> tuple[int, str, str]:
    metadata = pod["metadata"]
    created = metadata.get("creationTimestamp", "")
    return -int(pod["spec"].get("priority") or 0), created, metadata["name"]


def _differs(change: Change, facts: Callable[[Body], object]) -> bool:
    if change.type != "modified" or change.old is None:
        return True
    return facts(change.old) != facts(change.object)


def _pod_facts(pod: Body) -> tuple[Any, ...]:
    """What of a pod can change a decision about it or others."""
    status = pod.get("status") or {}
    finished = status.get("phase") in ("Succeeded", "Failed")
    deleted = pod["metadata"].get("deletionTimestamp")
    return pod["spec"], status.get("resourceClaimStatuses"), finished, deleted


def _node_facts(node: Body) -> tuple[Any, ...]:
    """Without the heartbeats."""
    status = node.get("status") or {}
    conditions = [(c.get("type"), c.get("status")) for c in status.get("conditions") or []]
    labels = node["metadata"].get("labels")
    return node.get("spec"), labels, conditions, status.get("allocatable")
