"""A pod that uses a GPU and stays, and what it sees of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.e2e.ring.errors import RingError
from tests.e2e.ring.kubectl import is_ready
from tests.e2e.ring.objects import a_gpu_pod, a_gpu_template, container_id
from tests.e2e.ring.patience import eventually

if TYPE_CHECKING:
    from tests.e2e.product.release import Product
    from tests.e2e.ring.kubectl import Manifest

_GPU = re.compile(r"GPU-[0-9a-f-]{36}")


@dataclass(frozen=True, slots=True)
class GpuUser:
    """A pod with one GPU of its own whose containers are started again when they end.

    `first`: the pod as it was when it became Ready.
    """

    product: Product
    first: Manifest

    @classmethod
    def running(
        cls, product: Product, namespace: str, *, name: str = "user", node: str = "", **spec: Any
    ) -> GpuUser:
        """Make the pod (and its claim's template) and wait until it is Ready."""
        kubectl = product.kubectl
        kubectl.apply(a_gpu_template(namespace=namespace))
        pod = a_gpu_pod(name, "sleep", "infinity", namespace=namespace, node=node)
        pod["spec"] |= {"restartPolicy": "Always", **spec}
        kubectl.create(pod)
        return cls(product, kubectl.wait_until_ready(name, namespace=namespace))

    @property
    def name(self) -> str:
        return str(self.first["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.first["metadata"]["namespace"])

    @property
    def node(self) -> str:
        return str(self.first["spec"]["nodeName"])

    def now(self) -> Manifest:
        return self.product.kubectl.get("pod", self.name, namespace=self.namespace)

    def run(self, *command: str) -> str:
        """What a command in the container prints."""
        return self.product.kubectl(
            "exec", self.name, f"--namespace={self.namespace}", "--", *command
        )

    def gpus(self) -> list[str]:
        """UUIDs that the container sees at this moment."""
        return _GPU.findall(self.run("nvidia-smi", "-L"))

    def claim(self) -> Manifest:
        [status] = self.now()["status"]["resourceClaimStatuses"]
        name = status["resourceClaimName"]
        return self.product.kubectl.get("resourceclaim", name, namespace=self.namespace)

    def is_undisturbed(self) -> bool:
        """Whether the pod is Ready, in the container in which it was first."""
        pod = self.now()
        return is_ready(pod) and container_id(pod) == container_id(self.first)

    def wait_until_restarted(self) -> None:
        """Wait until the pod is Ready in a new container."""

        def look() -> bool:
            pod = self.now()
            if is_ready(pod) and container_id(pod) != container_id(self.first):
                return True
            raise RingError(f"{self.name} has {pod['status']}")

        eventually(look, until=f"{self.name} runs in a new container", every_s=0.3)
