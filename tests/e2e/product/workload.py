"""Putting a spec onto the real cluster as its users do, and telling what came of it."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from tests.e2e.product.release import MIG_LAYOUT_LABEL, PROFILE_LABEL
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.patience import eventually

from nvdra_testing.specs import DEFAULT_PROFILE, AllocatedDevice, Outcome, PodOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.product.release import Product
    from tests.e2e.ring.kubectl import Manifest

    from nvdra_testing.specs import Spec

# Kubernetes says that a container runs before it has printed anything.
_LOGS_DEADLINE_S = 30.0


def run_spec(product: Product, spec: Spec) -> None:
    """Apply the spec on the hardware that it asks for, and verify its promise.

    Raises:
        AssertionError: the promise was not kept.
        RingError: the pods did not settle.
    """
    with (
        wanted_hardware(product, spec),
        one_node(product, spec),
        Workload.applied(product, spec) as work,
    ):
        work.wait_until_settled()
        work.verify()


@contextlib.contextmanager
def wanted_hardware(product: Product, spec: Spec) -> Iterator[None]:
    """Other hardware through the labels of nodes, and what was there before afterwards."""
    kubectl = product.kubectl
    if spec.profile != DEFAULT_PROFILE:
        label, value, nodes = PROFILE_LABEL, spec.profile, product.cluster.nodes
    elif spec.is_cut:
        # One node is enough: the scheduler has to find it.
        label, value, nodes = MIG_LAYOUT_LABEL, "half-and-half", product.cluster.nodes[-1:]
    else:
        yield
        return
    names = [node.name for node in nodes]
    before = product.published()
    kubectl("label", "node", *names, f"{label}={value}", "--overwrite")
    try:
        product.restart(*nodes)
        eventually(lambda: product.published() != before, until=f"{value} is published")
        yield
    finally:
        kubectl("label", "node", *names, f"{label}-")
        product.restart(*nodes)
        eventually(lambda: product.published() == before, until="the old hardware is published")


@contextlib.contextmanager
def one_node(product: Product, spec: Spec) -> Iterator[None]:
    """Only one node takes pods, if the spec asks for that."""
    others = [node.name for node in product.cluster.nodes[1:]] if spec.one_node else []
    try:
        for name in others:
            product.kubectl("cordon", name)
        yield
    finally:
        for name in others:
            product.kubectl("uncordon", name)


@dataclass(frozen=True, slots=True)
class Workload:
    """The objects of one applied spec."""

    product: Product
    spec: Spec
    namespace: str
    pods_expected: int

    @classmethod
    @contextlib.contextmanager
    def applied(cls, product: Product, spec: Spec) -> Iterator[Workload]:
        """`kubectl apply` of the file; its namespace is gone with everything on leaving."""
        text = spec.file.read_text(encoding="utf-8")
        documents = [each for each in yaml.safe_load_all(text) if each]
        [namespace] = (
            each["metadata"]["name"] for each in documents if each["kind"] == "Namespace"
        )
        try:
            _apply(product, spec)
            yield cls(product, spec, namespace, sum(map(_pods_of, documents)))
        finally:
            product.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait")

    def wait_until_settled(self) -> None:
        """Wait until all pods run or have run, or, if the spec says so, cannot be placed."""
        settled = _runs if self.spec.runs else _cannot_be_placed

        def look() -> bool:
            pods = self._pods()
            if len(pods) == self.pods_expected and all(map(settled, pods)):
                return True
            statuses = {pod["metadata"]["name"]: pod["status"] for pod in pods}
            raise RingError(f"{json.dumps(statuses)[:1500]}; {self._warnings()}")

        eventually(look, until=f"the pods of {self.spec.file.name} have settled", every_s=0.3)

    def verify(self) -> None:
        """Verify the promise, once more while containers may not have printed everything."""
        started = time.monotonic()
        while True:
            try:
                return self.spec.verify(self.outcome())
            except AssertionError:
                if time.monotonic() - started > _LOGS_DEADLINE_S:
                    raise
            time.sleep(0.3)

    def outcome(self) -> Outcome:
        devices = self.product.devices()
        claims = {claim["metadata"]["name"]: claim for claim in self._list("resourceclaims")}
        return Outcome(
            {
                pod["metadata"]["name"]: PodOutcome(
                    phase=pod["status"]["phase"],
                    node=pod["spec"].get("nodeName", ""),
                    devices=tuple(
                        AllocatedDevice(each["request"], devices[each["pool"], each["device"]])
                        for name in _claim_names(pod)
                        for each in _results(claims.get(name, {}))
                    ),
                    logs=self._logs(pod) if self.spec.runs else {},
                )
                for pod in self._pods()
            }
        )

    def _logs(self, pod: Manifest) -> dict[str, str]:
        name = pod["metadata"]["name"]
        return {
            container["name"]: self.product.kubectl.logs(
                name, namespace=self.namespace, container=container["name"]
            )
            for container in pod["spec"]["containers"]
        }

    def _pods(self) -> list[Manifest]:
        return self._list("pods")

    def _warnings(self) -> str:
        return "; ".join(
            event["message"] for event in self._list("events") if event["type"] == "Warning"
        )

    def _list(self, kind: str) -> list[Manifest]:
        return list(self.product.kubectl.list(kind, f"--namespace={self.namespace}"))


def _apply(product: Product, spec: Spec) -> None:
    product.kubectl("apply", f"--filename={spec.file}")


def _pods_of(document: dict[str, Any]) -> int:
    if document["kind"] == "Deployment":
        return int(document["spec"].get("replicas", 1))
    return int(document["kind"] == "Pod")


def _runs(pod: Manifest) -> bool:
    return pod["status"].get("phase") in ("Running", "Succeeded")


def _cannot_be_placed(pod: Manifest) -> bool:
    return any(
        seen["type"] == "PodScheduled" and seen.get("reason") == "Unschedulable"
        for seen in pod["status"].get("conditions", [])
    )


def _claim_names(pod: Manifest) -> list[str]:
    """Names of the pod's claims, in the order in which the pod names them."""
    statuses = pod["status"].get("resourceClaimStatuses", [])
    made = {each["name"]: each.get("resourceClaimName", "") for each in statuses}
    return [
        each.get("resourceClaimName") or made.get(each["name"], "")
        for each in pod["spec"].get("resourceClaims", [])
    ]


def _results(claim: Manifest) -> list[Manifest]:
    allocation = claim.get("status", {}).get("allocation", {})
    return list(allocation.get("devices", {}).get("results", []))
