"""Runs the pods of a Job until enough have succeeded, or too many failed."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from nvdra_kube.errors import NotFound
from nvdra_sim.cluster.controllers.kinds import JOBS
from nvdra_sim.cluster.controllers.owned_pods import (
    OwnedPods,
    is_active,
    is_ready,
    phase_of,
    wake_owner,
)
from nvdra_sim.cluster.controllers.ownership import is_dying
from nvdra_sim.cluster.controllers.workqueue import WorkQueue

if TYPE_CHECKING:
    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.informer import Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers

_BACKOFF_LIMIT: Final = 6


class Jobs:
    """Keyed by Job. Completions and parallelism only; indexed jobs and deadlines are not known."""

    def __init__(self, api: KubeApi, informers: SharedInformers) -> None:
        self._api = api
        self._pods = OwnedPods(api, JOBS)
        self.queue = WorkQueue("jobs", self.reconcile)
        informers.of(JOBS).subscribe(lambda change: self.queue.add(change.key))
        wake_owner(informers, JOBS, self.queue.add)

    async def reconcile(self, key: Key) -> None:
        try:
            job = await self._api.get(JOBS, key[1], namespace=key[0])
        except NotFound:
            return
        if is_dying(job) or _outcome(job):
            return
        spec = job["spec"]
        pods = await self._pods.list(job)
        counts = Counter(phase_of(pod) for pod in pods)
        active = [pod for pod in pods if is_active(pod)]
        parallelism = int(spec.get("parallelism", 1))
        completions = int(spec.get("completions") or parallelism)
        failed = counts["Failed"] > int(spec.get("backoffLimit", _BACKOFF_LIMIT))
        wanted = 0 if failed else min(parallelism, completions - counts["Succeeded"])
        active += await self._pods.create_some(wanted - len(active), job, spec["template"])
        for pod in active[max(0, wanted) :]:
            await self._pods.delete(pod)
        succeeded = counts["Succeeded"] >= completions
        verdict = "Failed" if failed else "Complete" if succeeded else ""
        await self._report(job, active[: max(0, wanted)], counts, verdict)

    async def _report(
        self, job: Body, active: list[Body], counts: Counter[str], verdict: str
    ) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        before = job.get("status") or {}
        status = {
            "startTime": before.get("startTime", now),
            "active": len(active),
            "ready": sum(map(is_ready, active)),
            "succeeded": counts["Succeeded"],
            "failed": counts["Failed"],
        }
        if verdict:
            condition = {"type": verdict, "status": "True", "lastTransitionTime": now}
            status["conditions"] = [condition]
        if verdict == "Complete":
            status["completionTime"] = now
        if before != status:
            job["status"] = status
            await self._api.update(JOBS, job, subresource="status")


def _outcome(job: Body) -> str:
    conditions = (job.get("status") or {}).get("conditions") or []
    ends = [c["type"] for c in conditions if c.get("status") == "True"]
    return next((end for end in ends if end in ("Complete", "Failed")), "")
