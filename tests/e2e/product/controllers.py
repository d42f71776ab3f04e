"""The replicas of the controller: which of them leads, what they called, what was refused."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.injectors.plugin_process import process_of
from tests.e2e.product.release import CONTROLLER, NAMESPACE
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.kubectl import is_ending, is_ready
from tests.e2e.ring.objects import container_id
from tests.e2e.ring.patience import eventually

from nvdra_api.names import CONTROLLER as CONTROLLER_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.product.release import Product
    from tests.e2e.ring.kubectl import Manifest
    from tests.e2e.ring.processes import ProcessMark


def controllers(product: Product) -> Sequence[Manifest]:
    """Pods of the controller that are not being deleted."""
    found = product.kubectl.list("pods", f"--namespace={NAMESPACE}", CONTROLLER)
    return [pod for pod in found if not is_ending(pod)]


def wait_for_controllers(product: Product, count: int) -> Sequence[Manifest]:
    """Wait until there are so many, all of them Ready, and none that is still ending."""

    def look() -> Sequence[Manifest]:
        pods = product.kubectl.list("pods", f"--namespace={NAMESPACE}", CONTROLLER)
        if [is_ready(pod) and not is_ending(pod) for pod in pods] != [True] * count:
            raise RingError(f"controllers: {[pod['metadata']['name'] for pod in pods]}")
        return pods

    return eventually(look, until=f"{count} controllers are there, and Ready")


def stop_controllers(product: Product) -> None:
    """Scale them to none. On return their programs have ended: a pod goes last."""
    where = f"--namespace={NAMESPACE}"
    product.kubectl("scale", f"deployment/{CONTROLLER_NAME}", where, "--replicas=0")
    eventually(
        lambda: not product.kubectl.list("pods", where, CONTROLLER), until="no controller is left"
    )


class Leader(NamedTuple):
    """Who holds the lease. A container that starts anew in the same pod has another identity."""

    identity: str
    pod: Manifest
    process: ProcessMark

    def kill(self) -> None:
        assert self.process.kill()


def leader(product: Product, *, other_than: str = "") -> Leader:
    """The leader; ``other_than`` is the identity of one that has lost the lease."""

    def look() -> Leader:
        lease = product.kubectl.get("lease", CONTROLLER_NAME, namespace=NAMESPACE)
        holder = lease["spec"].get("holderIdentity") or ""
        for pod in controllers(product):
            if holder.startswith(pod["metadata"]["name"]) and holder != other_than:
                return Leader(holder, pod, _process_of(pod))
        raise RingError(f"the lease is held by {holder!r}")

    return eventually(look, until="a replica leads")


def _process_of(pod: Manifest) -> ProcessMark:
    """Raises `RingError` while the kubelet still tells of the container before this one."""
    if not (container := container_id(pod)):
        raise RingError(f"{pod['metadata']['name']} has no container yet")
    return process_of(container)


def controller_calls(product: Product) -> Counter[tuple[str, str, str]]:
    """Calls of the API by all controllers so far, by verb, resource and code."""
    made: Counter[tuple[str, str, str]] = Counter()
    for pod in controllers(product):
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
        for family in text_string_to_metric_families(product.kubectl("get", "--raw", path)):
            for sample in family.samples:
                if sample.name == "nvidia_dra_kube_api_requests_total":
                    labels = sample.labels
                    key = labels["verb"].lower(), labels["resource"], labels["code"]
                    made[key] += int(sample.value)
    return made


def refusals(product: Product, pods: Sequence[Manifest]) -> list[str]:
    """Log lines of what was refused for lack of rights, not because a namespace was going.

    Pods that are being deleted are left out: they may be gone, and their rights with them.
    """
    refused = []
    for pod in pods:
        if not is_ending(pod):
            said = _log_of(product, pod["metadata"]["name"])
            refused += [line for line in said.splitlines() if "forbidden" in line.lower()]
    return [line for line in refused if "being terminated" not in line]


def _log_of(product: Product, pod: str) -> str:
    """The kubelet has none to give in the moment in which it starts a container anew."""
    words = "logs", pod, f"--namespace={NAMESPACE}", "--all-containers"
    [said] = eventually(lambda: [product.kubectl(*words)], until=f"the log of {pod} can be read")
    return said
