"""Pods that use GPUs while something fails around them, and what they and their node show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.e2e.ring.errors import RingError
from tests.e2e.ring.objects import a_gpu_pod, a_gpu_template, container_id
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.ring.kubectl import Kubectl, Manifest
    from tests.e2e.ring.node import Node

_STATE: Final = "var/lib/kubelet/plugins/gpu.nvidia.com/claims"
_CDI: Final = "run/cdi"
_UID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Users:
    """Pods of one namespace on one node, each with one GPU until it is deleted."""

    kubectl: Kubectl
    namespace: str
    node: Node

    def prepare(self) -> None:
        """Make the claim template of all of them."""
        self.kubectl.apply(a_gpu_template(namespace=self.namespace))

    def create(self, *names: str) -> None:
        self.kubectl.create(*map(self._pod, names))

    def run(self, *names: str) -> None:
        """Create them and wait until they are Ready."""
        self.create(*names)
        for name in names:
            self.wait_until_ready(name)

    def wait_until_ready(self, name: str) -> Manifest:
        return self.kubectl.wait_until_ready(name, namespace=self.namespace)

    def delete(self, *names: str) -> None:
        """Delete them and wait until they and their claims are gone."""
        self.kubectl.delete(*map(self._pod, names))
        claims = {f"{name}-gpu-" for name in names}
        eventually(
            lambda: (
                not any(
                    claim["metadata"]["name"].startswith(tuple(claims)) for claim in self.claims()
                )
            ),
            until="the claims are gone",
        )

    def gpu(self, name: str) -> str:
        """UUID of the one GPU that the pod's container sees now."""

        def look() -> str:
            said = self.kubectl("exec", name, f"--namespace={self.namespace}", "--",
                                "nvidia-smi", "-L")  # fmt: skip
            found = re.findall(r"UUID: (GPU-[0-9a-f-]+)", said)
            if len(found) != 1:
                raise RingError(f"{name} sees {found or said!r}", remedy="one GPU was claimed")
            return str(found[0])

        return eventually(look, until=f"{name} tells its GPU")

    def container(self, name: str) -> str:
        """The ID of the pod's container: another one after each restart."""
        pod = self.kubectl.get("pod", name, namespace=self.namespace)
        return container_id(pod)

    def claims(self) -> Sequence[Manifest]:
        return self.kubectl.list("resourceclaims", f"--namespace={self.namespace}")

    def _pod(self, name: str) -> Manifest:
        pod = a_gpu_pod(
            name, "sleep", "infinity", namespace=self.namespace, node=self.node.name
        )  # fmt: skip
        pod["spec"]["restartPolicy"] = "Always"
        return pod


def left_on(node: Node) -> set[str]:
    """Names of the CDI files and claim records on a node: none is there without a claim."""
    folders = (node.root / _CDI, node.root / _STATE)
    return {file.name for folder in folders if folder.is_dir() for file in folder.iterdir()}


def claims_on(node: Node) -> set[str]:
    """UIDs of claims that have left something on the node: of these a prepare has begun."""
    return {uid for name in left_on(node) for uid in _UID.findall(name)}


def wait_until_clean(node: Node) -> None:
    """Wait until nothing of any claim is left on the node's disks."""

    def look() -> bool:
        if left := left_on(node):
            raise RingError(f"{node.name} still has {sorted(left)}")
        return True

    eventually(look, until=f"{node.name} has no CDI files and claim records")
