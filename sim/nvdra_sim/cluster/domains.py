"""What a cluster needs for ComputeDomains: what the installation brings, and the controllers."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import yaml

import nvdra_api
from nvdra_api.names import NAMESPACE
from nvdra_kube.api import Resource
from nvdra_sim.cluster.agent_process import AgentProcess
from nvdra_sim.cluster.kubelet.addresses import next_address
from nvdra_sim.cluster.kubelet.driver_image import DRIVER_IMAGE
from nvdra_sim.cluster.kubelet.probes import HttpProbe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_kube.api import KubeApi
    from nvdra_sim.cluster.access import ApiAccess

CONTROLLER_MODULE: Final = "nvdra_operator.main"
_DEFINITIONS: Final = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
_PORT: Final = 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainPlan:
    """Who serves ComputeDomains; several controllers elect a leader.

    `lifecycle` is the controller's flag: with `mirror` it starts faster, and needs no Kopf.
    """

    controllers: int = 1
    lifecycle: Literal["mirror", "kopf"] = "mirror"
    controller_flags: Sequence[str] = ()
    plugin_flags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ControllerProcess:
    """A controller, with an address of its own as Pods have it."""

    name: str
    process: AgentProcess
    address: str

    @property
    def metrics_url(self) -> str:
        return f"http://{self.address}:{_PORT}/metrics"

    async def wait_ready(self) -> None:
        """Until it leads, or stands by."""
        probe = HttpProbe(_PORT, "/readyz", period_s=0.05, timeout_s=5, failures=1)
        while not await probe.succeeds(self.address):  # noqa: ASYNC110 - asks a server
            await asyncio.sleep(probe.period_s)


def controllers(
    plan: DomainPlan, *, access: ApiAccess, root: Path, feature_gates: str
) -> list[ControllerProcess]:
    """Not started yet; logs go to `root`."""
    names = [f"controller-{number}" for number in range(1, plan.controllers + 1)]
    return [_controller(name, plan, access, root, feature_gates) for name in names]


def _controller(
    name: str, plan: DomainPlan, access: ApiAccess, root: Path, feature_gates: str
) -> ControllerProcess:
    address = next_address()
    process = AgentProcess(
        module=CONTROLLER_MODULE,
        arguments=[
            *("--pod-name", name),
            *controller_arguments(plan.lifecycle),
            *("--http-endpoint", f"{address}:{_PORT}"),
            *("--service-account-dir", str(access.service_account_dir)),
            *("--feature-gates", feature_gates),
            *("--leader-election-enabled", "true" if plan.controllers > 1 else "false"),
            *("--leader-election-lease-lock-namespace", NAMESPACE),
            *plan.controller_flags,
        ],
        environ=access.environ_in(os.environ),
        log_file=root / f"{name}.log",
    )
    return ControllerProcess(name, process, address)


def controller_arguments(lifecycle: str) -> list[str]:
    """What every controller of a simulated cluster is told."""
    return [
        *("--namespace", NAMESPACE),
        *("--image-name", DRIVER_IMAGE),
        *("--log-verbosity-cd-daemon", "4"),
        *("--lifecycle", lifecycle),
        *("-v", "4"),
    ]


async def install_definitions(api: KubeApi) -> None:
    """Make the server know ComputeDomains and their cliques."""
    for path in _definition_files():
        await api.create(_DEFINITIONS, yaml.safe_load(path.read_text()))


def _definition_files() -> list[Path]:
    """Beside the API's package when installed, above it in the source tree."""
    package = Path(str(nvdra_api.__file__)).parent
    for directory in (package / "crds", package.parent):
        if found := sorted(directory.glob("resource.nvidia.com_*.yaml")):
            return found
    raise FileNotFoundError(f"the definitions of ComputeDomains are not below {package}")
