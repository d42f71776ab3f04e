"""The driver on the ring as its users put it there: image, chart, `helm install --wait`."""

from __future__ import annotations

import fcntl
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml
from tests.e2e.ring.errors import RingError
from tests.e2e.ring.kubectl import is_ending, is_ready
from tests.e2e.ring.patience import eventually
from tests.e2e.ring.processes import run
from tests.e2e.ring.storage import images_dir

from nvdra_api.names import COMPONENT_CONTROLLER, COMPONENT_KUBELET_PLUGIN, LABEL_COMPONENT
from nvdra_testing.helm import CHART, HelmFailed, run_helm
from nvdra_testing.image import IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.e2e.ring.cluster import RealCluster
    from tests.e2e.ring.kubectl import Kubectl, Manifest
    from tests.e2e.ring.node import Node

NAMESPACE: Final = "dra-driver-nvidia-gpu"
RELEASE: Final = "nvdra"
DRIVER: Final = "gpu.nvidia.com"
PLUGIN: Final = f"--selector={LABEL_COMPONENT}={COMPONENT_KUBELET_PLUGIN}"
CONTROLLER: Final = f"--selector={LABEL_COMPONENT}={COMPONENT_CONTROLLER}"
_ALL: Final = f"--selector=app.kubernetes.io/instance={RELEASE}"
PROFILE_LABEL: Final = "resource.nvidia.com/simulated-profile"
MIG_LAYOUT_LABEL: Final = "resource.nvidia.com/simulated-mig-layout"
_MIG_LAYOUTS: Final = CHART.parents[1] / "simulator" / "mig-layout.yaml"


def load_image(cluster: RealCluster) -> None:
    """Build the driver's image, as far as it changed, and import it into every node."""
    images_dir().mkdir(parents=True, exist_ok=True)
    archive = images_dir() / "driver.tar"
    # Another run may build at the same time, and out of the same cache of layers.
    with (images_dir() / "driver.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run([sys.executable, IMAGE / "build.py", "archive", "--output", archive])
        cluster.load_images(archive)


def simulated_values() -> dict[str, Any]:
    """Values that every release here has; nodes with the label are cut into MIG devices."""
    layouts = yaml.safe_load(_MIG_LAYOUTS.read_text(encoding="utf-8"))
    return {
        "gpuResourcesEnabledOverride": True,
        "resources": {"computeDomains": {"enabled": False}},
        "image": {"pullPolicy": "IfNotPresent"},
        "simulation": {"enabled": True, "profile": "h100", "migLayouts": layouts},
    }


@dataclass(slots=True)
class Product:
    """One release of the chart on the cluster, and looks at what it does there.

    `install_s`: seconds from `helm install --wait` to Ready, of the last installation.
    """

    cluster: RealCluster
    values: Mapping[str, Any] = field(default_factory=simulated_values)
    install_s: float = 0.0

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    def install(self) -> None:
        """`helm install --wait`: returns when every node's plugin is registered."""
        started = time.monotonic()
        self._helm("install", RELEASE, str(CHART), "--create-namespace", "--wait",
                   values=self.values)  # fmt: skip
        self.install_s = time.monotonic() - started

    def upgrade(self, *arguments: str) -> None:
        """`helm upgrade --wait` with further `--set` arguments on top of the values."""
        self._helm("upgrade", RELEASE, str(CHART), "--wait", *arguments, values=self.values)

    def manifest(self) -> str:
        """What the installed release consists of, as YAML."""
        return self._helm("get", "manifest", RELEASE)

    def uninstall(self, *, keep_namespace: bool = False) -> None:
        """`helm uninstall --wait`, and the namespace with it."""
        self._helm("uninstall", RELEASE, "--wait", "--ignore-not-found")
        if not keep_namespace:
            self.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")

    def _helm(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        where = (f"--namespace={NAMESPACE}", f"--kubeconfig={self.cluster.kubeconfig}")
        # Of its own accord helm waits for 5 minutes, and "get" for nothing.
        patience = () if arguments[0] == "get" else ("--timeout=10m",)
        try:
            return run_helm(*arguments, *where, *patience, values=values)
        except HelmFailed as failed:
            raise RingError(f"helm {arguments[0]}: {failed}\n{self.explain()}") from failed

    def explain(self) -> str:
        """State and last words of the driver's pods, for messages of failures."""
        pods = self.kubectl("get", "pods", f"--namespace={NAMESPACE}", "--output=wide")
        return pods + self.kubectl(
            "logs", _ALL, f"--namespace={NAMESPACE}", "--all-containers", "--prefix",
            "--tail=15", "--ignore-errors",
        )  # fmt: skip

    def pods(self) -> Sequence[Manifest]:
        """Pods of the kubelet plugin."""
        return self.kubectl.list("pods", f"--namespace={NAMESPACE}", PLUGIN)

    def pod_on(self, node: Node | str) -> Manifest:
        """The plugin's pod of a node that is not being deleted."""
        name = node if isinstance(node, str) else node.name
        pods = [
            pod for pod in self.pods() if pod["spec"].get("nodeName") == name and not is_ending(pod)
        ]
        if len(pods) != 1:
            raise RingError(f"{name} has {len(pods)} pods of the plugin")
        return pods[0]

    def wait_until_ready(self, *nodes: Node | str) -> None:
        """Wait until the plugin of these nodes (or all) is registered and has published."""
        for node in nodes or self.cluster.nodes:
            name = node if isinstance(node, str) else node.name
            eventually(
                lambda name=name: is_ready(self.pod_on(name)) and self.devices(name),  # type: ignore[misc]
                until=f"the plugin of {name} is Ready and has published",
            )

    def restart(self, *nodes: Node | str) -> None:
        """Delete the plugin's pods of these nodes (or all) and wait for new ones."""
        chosen = nodes or self.cluster.nodes
        pods = [self.pod_on(node)["metadata"]["name"] for node in chosen]
        self.kubectl("delete", "pod", *pods, f"--namespace={NAMESPACE}", "--wait")
        self.wait_until_ready(*chosen)

    def slices(self) -> list[Manifest]:
        found = self.kubectl.list("resourceslices")
        return [each for each in found if each["spec"]["driver"] == DRIVER]

    def devices(self, node: Node | str = "") -> dict[tuple[str, str], str]:
        """UUIDs of what is published (by one node), by pool and device name."""
        name = node if isinstance(node, str) else node.name
        return {
            (found["spec"]["pool"]["name"], device["name"]): device["attributes"]["uuid"]["string"]
            for found in self.slices()
            if name in ("", found["spec"].get("nodeName"))
            for device in found["spec"].get("devices", [])
        }

    def published(self) -> dict[str, list[Manifest]]:
        """The devices of each node, with all that is told about them."""
        told: dict[str, list[Manifest]] = {}
        for found in self.slices():
            told.setdefault(found["spec"]["nodeName"], []).extend(found["spec"].get("devices", []))
        return told
