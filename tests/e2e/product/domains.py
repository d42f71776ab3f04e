"""ComputeDomains as their users make them, and what daemons and nodes show of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.product.release import NAMESPACE, Product, simulated_values
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.kubectl import is_ending, is_ready
from tests.e2e.ring.objects import a_pod
from tests.e2e.ring.patience import DEADLINE_S, eventually

from nvdra_api.names import LABEL_COMPUTE_DOMAIN, daemon_set_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.e2e.ring.kubectl import Kubectl, Manifest

DRIVER: Final = "compute-domain.nvidia.com"
_SEVERAL_CONTROLLERS: Final[Mapping[str, Any]] = {
    "replicas": 2,
    # Unlike those of a user: a test does not wait for 15 s.
    "leaderElection": {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "1s"},
}
# Four nodes, one after the other, would take a minute for each update.
_ALL_AT_ONCE: Final = {"maxSurge": "100%", "maxUnavailable": 0}
_KINDS: Final = (
    "daemonsets", "resourceclaimtemplates", "computedomaincliques", "pods", "nodes",
)  # fmt: skip
_CHANNEL: Final = re.compile(r"\bchannel(\d+)\b")
_CHANNELS_DIR: Final = "/dev/nvidia-caps-imex-channels"


def domain_values() -> dict[str, Any]:
    """Values for two controllers, and nodes whose NVLinks leave the machine."""
    values = simulated_values()
    return {
        **values,
        "simulation": {**values["simulation"], "profile": "gb200"},
        "resources": {"computeDomains": {"enabled": True}},
        "controller": dict(_SEVERAL_CONTROLLERS),
        "kubeletPlugin": {"updateStrategy": {"rollingUpdate": _ALL_AT_ONCE}},
    }


def a_domain(name: str, *, namespace: str, nodes: int = 0, mode: str = "Single") -> Manifest:
    """A ComputeDomain whose claim template is ``<name>-channel``."""
    channel = {"resourceClaimTemplate": {"name": f"{name}-channel"}, "allocationMode": mode}
    return {
        "apiVersion": "resource.nvidia.com/v1beta1",
        "kind": "ComputeDomain",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"numNodes": nodes, "channel": channel},
    }


def a_channel_user(name: str, *, namespace: str, domain: str, node: str = "") -> Manifest:
    """A pod with a channel of the domain that stays, and is started again after a reboot."""
    command = "trap 'exit 0' TERM; sleep 9999 & wait"
    pod = a_pod(name, "sh", "-c", command, namespace=namespace, node=node)
    pod["spec"]["containers"][0]["resources"] = {"claims": [{"name": "channel"}]}
    template = f"{domain}-channel"
    pod["spec"] |= {
        "resourceClaims": [{"name": "channel", "resourceClaimTemplateName": template}],
        "restartPolicy": "Always",
    }
    return pod


@dataclass(frozen=True, slots=True)
class Domains:
    """The ComputeDomains of one namespace, and the installed driver that keeps them."""

    product: Product
    namespace: str

    @property
    def kubectl(self) -> Kubectl:
        return self.product.kubectl

    @property
    def node_names(self) -> list[str]:
        return [node.name for node in self.product.cluster.nodes]

    def create(self, name: str, *, nodes: int = 0, mode: str = "Single") -> Manifest:
        """A domain of which the controller has made all objects."""
        self.kubectl.create(a_domain(name, namespace=self.namespace, nodes=nodes, mode=mode))
        return self.wait_until_made(name)

    def start_users(self, name: str, *nodes: str) -> None:
        """A pod ``<name>-on-<node>`` with a channel of the domain on each of these nodes."""
        pods = [
            a_channel_user(f"{name}-on-{node}", namespace=self.namespace, domain=name, node=node)
            for node in nodes
        ]
        self.kubectl.create(*pods)

    def form(self, name: str, *nodes: str) -> Manifest:
        """A domain with a user on each of these nodes, all of which are Ready."""
        self.create(name)
        self.start_users(name, *nodes)
        for node in nodes:
            self.kubectl.wait_until_ready(f"{name}-on-{node}", namespace=self.namespace)
        return self.wait_for_nodes(name, nodes)

    def get(self, name: str) -> Manifest:
        return self.kubectl.get("computedomain", name, namespace=self.namespace)

    def delete(self, *names: str) -> None:
        """Delete domains and wait until they are gone."""
        where = f"--namespace={self.namespace}"
        self.kubectl("delete", "computedomain", *names, where, f"--timeout={DEADLINE_S:.0f}s")

    def wait_until_made(self, name: str) -> Manifest:
        """Wait for the domain's status and for all its objects."""

        def look() -> Manifest:
            found = self.get(name)
            if not found.get("status", {}).get("conditions"):
                raise RingError(f"{name} is {json.dumps(found)[-1500:]}")
            template = found["spec"]["channel"]["resourceClaimTemplate"]["name"]
            self.kubectl.get("resourceclaimtemplate", template, namespace=self.namespace)
            daemons = daemon_set_name(found["metadata"]["uid"])
            self.kubectl.get("daemonset", daemons, namespace=NAMESPACE)
            return found

        return eventually(look, until=f"ComputeDomain {name} is made", every_s=0.3)

    def wait_for_nodes(self, name: str, nodes: Collection[str]) -> Manifest:
        """Wait until the domain is Ready and consists of these nodes, each of them Ready."""

        def look() -> Manifest:
            found = self.get(name)
            status = found.get("status", {})
            seen = {node["name"]: node["status"] for node in status.get("nodes", [])}
            if seen == dict.fromkeys(nodes, "Ready") and status.get("status") == "Ready":
                return found
            raise RingError(f"{name} has status {json.dumps(status)}")

        return eventually(look, until=f"{name} consists of {sorted(nodes)}, Ready", every_s=0.2)

    def wait_for_reason(self, name: str, reason: str) -> Manifest:
        """Wait until the condition Ready of the domain has this reason; returns the condition."""

        def look() -> Manifest:
            found = condition_of(self.get(name), "Ready")
            if found.get("reason") == reason:
                return found
            raise RingError(f"{name} has {found}")

        return eventually(look, until=f"{name} is {reason}", every_s=0.2)

    def channels_of(self, pod: str) -> list[int]:
        """Numbers of the IMEX channels that the pod's container sees now."""
        listed = self.kubectl(
            "exec", pod, f"--namespace={self.namespace}", "--", "ls", _CHANNELS_DIR
        )  # fmt: skip
        return sorted(int(number) for number in _CHANNEL.findall(listed))

    def daemon_on(self, domain: Manifest, node: str) -> Manifest:
        """The Ready pod of the domain's IMEX daemon on that node."""

        def look() -> Manifest:
            found = [pod for pod in self.daemons(domain) if pod["spec"].get("nodeName") == node]
            ready = [pod for pod in found if is_ready(pod) and not is_ending(pod)]
            if len(ready) == 1:
                return ready[0]
            raise RingError(f"daemons on {node}: {json.dumps([p['status'] for p in found])}")

        return eventually(look, until=f"the daemon on {node} is Ready", every_s=0.3)

    def daemons(self, domain: Manifest) -> Sequence[Manifest]:
        return self.kubectl.list("pods", f"--namespace={NAMESPACE}", label_of(domain))

    def wait_until_nothing_is_left(self, domain: Manifest) -> None:
        """Wait until no object and no node is labelled as the domain's."""

        def look() -> bool:
            left = {kind: self._named(kind, domain) for kind in _KINDS}
            if any(left.values()):
                raise RingError(f"left of {domain['metadata']['name']}: {left}")
            return True

        eventually(look, until="nothing is left of the domain", every_s=0.3)

    def _named(self, kind: str, domain: Manifest) -> list[str]:
        found = self.kubectl.list(kind, "--all-namespaces", label_of(domain))
        return [each["metadata"]["name"] for each in found]

    def warnings(self, pod: str) -> list[str]:
        """What events complain about the pod."""
        about = f"--field-selector=involvedObject.name={pod},type=Warning"
        events = self.kubectl.list("events", f"--namespace={self.namespace}", about)
        return [event["message"] for event in events]


def index_of(domain: Manifest, node: str) -> int:
    """The node's slot in its clique, as the domain was when it was read."""
    [index] = [entry["index"] for entry in domain["status"]["nodes"] if entry["name"] == node]
    return int(index)


def label_of(domain: Manifest) -> str:
    return f"--selector={LABEL_COMPUTE_DOMAIN}={domain['metadata']['uid']}"


def condition_of(domain: Manifest, kind: str) -> Manifest:
    conditions = domain.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})
