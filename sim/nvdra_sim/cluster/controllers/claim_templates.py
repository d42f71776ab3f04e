"""Makes the claims that pods ask for by template, and says so in the pods' status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_kube.errors import NotFound
from nvdra_kube.resources import PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from nvdra_sim.cluster.controllers.ownership import (
    controller_reference,
    is_controlled_by,
    is_dying,
    key_of,
)
from nvdra_sim.cluster.controllers.workqueue import WorkQueue
from nvdra_sim.cluster.scheduler.podclaims import ClaimSource, claim_sources, is_done

if TYPE_CHECKING:
    from nvdra_kube.api import Body, KubeApi
    from nvdra_kube.events import EventRecorder
    from nvdra_kube.informer import Change, Key
    from nvdra_sim.cluster.controllers.informers import SharedInformers

POD_CLAIM_ANNOTATION: Final = "resource.kubernetes.io/pod-claim-name"
# The server appends 5 characters to a generated name, and a name has 63 at most.
_BASE_LIMIT: Final = 57


class ClaimTemplates:
    """Keyed by pod."""

    def __init__(
        self, api: KubeApi, informers: SharedInformers, *, recorder: EventRecorder
    ) -> None:
        self._api = api
        self._pods = informers.of(PODS)
        self._recorder = recorder
        self.queue = WorkQueue("claim templates", self.reconcile)
        self._pods.subscribe(self._pod_changed)
        informers.of(RESOURCE_CLAIM_TEMPLATES).subscribe(self._template_changed)

    def _pod_changed(self, change: Change) -> None:
        if change.type != "deleted" and _missing(change.object):
            self.queue.add(change.key)

    def _template_changed(self, change: Change) -> None:
        """Pods may come before their template."""
        for key, pod in self._pods.items.items():
            if key[0] == change.key[0] and _missing(pod):
                self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        """Make what is missing. Asks the server, so that a late informer makes nothing twice."""
        if key not in self._pods.items or not _missing(self._pods.items[key]):
            return
        namespace, name = key
        pod = await self._api.get(PODS, name, namespace=namespace)
        missing = _missing(pod)
        if not missing:
            return
        claims = (await self._api.list(RESOURCE_CLAIMS, namespace=namespace))["items"]
        made = {_pod_claim_name(c): c for c in claims if is_controlled_by(c, pod)}
        for source in missing:
            claim = made.get(source.name) or await self._make(pod, source)
            if claim is not None:
                self._note(pod, source, claim)
        await self._api.update(PODS, pod, subresource="status")

    async def _make(self, pod: Body, source: ClaimSource) -> Body | None:
        namespace = pod["metadata"]["namespace"]
        try:
            template = await self._api.get(
                RESOURCE_CLAIM_TEMPLATES, source.template, namespace=namespace
            )
        except NotFound:
            note = (
                f'PodResourceClaim {source.name}: resourceclaimtemplate "{source.template}"'
                f' not found in namespace "{namespace}"'
            )
            await self._recorder.event(
                pod, type="Warning", reason="FailedResourceClaimCreation", note=note
            )
            return None
        return await self._api.create(
            RESOURCE_CLAIMS, _claim(pod, source, template), namespace=namespace
        )

    def _note(self, pod: Body, source: ClaimSource, claim: Body) -> None:
        statuses = pod.setdefault("status", {}).setdefault("resourceClaimStatuses", [])
        others = [status for status in statuses if status["name"] != source.name]
        entry = {"name": source.name, "resourceClaimName": claim["metadata"]["name"]}
        pod["status"]["resourceClaimStatuses"] = [*others, entry]


def _missing(pod: Body) -> list[ClaimSource]:
    if is_done(pod) or is_dying(pod):
        return []
    return [s for s in claim_sources(pod) if s.template and not s.claim and not s.is_absent]


def _pod_claim_name(claim: Body) -> str:
    annotations = claim["metadata"].get("annotations") or {}
    return str(annotations.get(POD_CLAIM_ANNOTATION, ""))


def _claim(pod: Body, source: ClaimSource, template: Body) -> Body:
    namespace, pod_name = key_of(pod)
    given = template["spec"].get("metadata") or {}
    return {
        "apiVersion": RESOURCE_CLAIMS.api_version,
        "kind": RESOURCE_CLAIMS.kind,
        "metadata": {
            "generateName": f"{pod_name}-{source.name}"[:_BASE_LIMIT] + "-",
            "namespace": namespace,
            "labels": given.get("labels") or {},
            "annotations": {
                **(given.get("annotations") or {}),
                POD_CLAIM_ANNOTATION: source.name,
            },
            "ownerReferences": [controller_reference(pod, PODS)],
        },
        "spec": template["spec"]["spec"],
    }
