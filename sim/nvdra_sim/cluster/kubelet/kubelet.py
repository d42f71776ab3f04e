"""The embedded kubelet of one node: drivers, claims and Pods, wired together.

It speaks the real gRPC over real sockets with the real timers where a driver can tell the
difference; what a person would only wait for is shorter, and a parameter (`KubeletTimes`).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from nvdra_kube.events import EventRecorder
from nvdra_kube.informer import Informer
from nvdra_kube.resources import PODS
from nvdra_sim.cluster.kubelet.cdi import CdiRegistry
from nvdra_sim.cluster.kubelet.container import NamespaceRuntime, namespaces_refused
from nvdra_sim.cluster.kubelet.dra import PodResources
from nvdra_sim.cluster.kubelet.dra_client import CALL_LIMIT_S
from nvdra_sim.cluster.kubelet.images import ImageError
from nvdra_sim.cluster.kubelet.interpreter import InterpretedRuntime
from nvdra_sim.cluster.kubelet.node_object import node_body, register_node
from nvdra_sim.cluster.kubelet.plugins import PluginRegistry, RegistrationTimes
from nvdra_sim.cluster.kubelet.pod_containers import ContainerStarter
from nvdra_sim.cluster.kubelet.pod_worker import PodServices, PodTimes, PodWorker
from nvdra_sim.cluster.kubelet.slice_wiper import WIPE_DELAY_S, SliceWiper

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nvdra_kube.api import KubeApi
    from nvdra_kube.informer import Change
    from nvdra_sim.cluster.kubelet.container import ContainerRuntime
    from nvdra_sim.cluster.kubelet.images import ImageStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletTimes:
    """All timers, in seconds. Defaults a driver can notice are those of the real kubelet."""

    registration: RegistrationTimes = field(default_factory=RegistrationTimes)
    pods: PodTimes = field(default_factory=PodTimes)
    call_limit_s: float = CALL_LIMIT_S
    wipe_delay_s: float = WIPE_DELAY_S
    sweep_s: float = 60.0


class Kubelet:
    """One node. Everything it writes lies below `root`; drivers find there `plugins_registry/`,
    `plugins/` and `cdi/`. `run` belongs to a task of the owner."""

    def __init__(
        self,
        api: KubeApi,
        *,
        node: str,
        root: Path,
        images: ImageStore,
        labels: Mapping[str, str] | None = None,
        times: KubeletTimes | None = None,
        runtime: ContainerRuntime | None = None,
        boot_id: Path | None = None,
    ) -> None:
        """`runtime` is chosen by what the machine allows unless given. `boot_id` is a file that
        containers see in place of the machine's own."""
        self._api = api
        self._node = node
        self._root = root
        self._images = images
        self._labels = labels or {}
        self._times = times or KubeletTimes()
        self._runtime = runtime
        self._boot_id = boot_id
        self._wiper = SliceWiper(api, node=node, delay_s=self._times.wipe_delay_s)
        self.plugins = PluginRegistry(
            root / "plugins_registry",
            on_change=self._driver_changed,
            times=self._times.registration,
            call_limit_s=self._times.call_limit_s,
        )
        self._workers: dict[str, PodWorker] = {}
        # Where the newest Pod of a name keeps its logs; kept when the Pod is gone.
        self._directories: dict[tuple[str, str], Path] = {}

    def __repr__(self) -> str:
        return f"<Kubelet {self._node}, {len(self._workers)} pods>"

    async def wait_registered(self, driver: str) -> None:
        """Return once a plugin of `driver` is registered."""
        await self.plugins.wait_registered(driver)

    def containers(self, namespace: str, pod: str) -> list[str]:
        """Containers of the newest Pod of that name that have logs."""
        directory = self._directories.get((namespace, pod))
        return sorted(path.name for path in (directory / "logs").glob("*")) if directory else []

    def logs(self, namespace: str, pod: str, container: str) -> str:
        """Output of the container's last start that had any. Blocks briefly.

        One that is only just being started again has nothing to say yet; why the one before it
        ended is what people look for.
        """
        directory = self._directories.get((namespace, pod))
        if directory is None:
            return ""
        attempts = sorted(
            (directory / "logs" / container).glob("*.log"),
            key=lambda path: int(path.stem),
            reverse=True,
        )
        texts = (path.read_text(encoding="utf-8", errors="replace") for path in attempts)
        return next(filter(None, texts), "")

    async def run(self) -> None:
        """Until cancelled. Then every container is killed and its files are removed; claims stay
        prepared, as when a real kubelet stops."""
        await asyncio.to_thread(self._make_directories)
        recorder = EventRecorder(self._api, component="kubelet", instance=self._node)
        try:
            async with recorder:
                services = await self._services(recorder)
                await register_node(self._api, await self._node_body())
                await self._run_with(services)
        finally:
            await asyncio.to_thread(shutil.rmtree, self._root / "pods", ignore_errors=True)

    async def _run_with(self, services: PodServices) -> None:
        pods = Informer(self._api, PODS, field_selector=f"spec.nodeName={self._node}")
        async with asyncio.TaskGroup() as group:
            pods.subscribe(lambda change: self._take(change, services, group))
            for name, run in (
                ("plugins", self.plugins.run()),
                ("slices", self._wipe()),
                ("pods", pods.run()),
                ("sweep", self._sweep(pods, services.resources)),
            ):
                group.create_task(run, name=f"kubelet {self._node} {name}")

    def _make_directories(self) -> None:
        for name in ("plugins_registry", "plugins", "pods", "cdi"):
            (self._root / name).mkdir(parents=True, exist_ok=True)
        # Built now, the image costs the first Pod nothing; a failure is that Pod's to report.
        with contextlib.suppress(ImageError):
            self._images.image("any")

    async def _node_body(self) -> dict[str, object]:
        version = await self._api.server_version()
        return node_body(self._node, version=version, labels=self._labels)

    async def _services(self, recorder: EventRecorder) -> PodServices:
        resources = await PodResources.open(
            self._api, client=self.plugins.client, path=self._root / "dra_manager_state"
        )
        starter = ContainerStarter(
            runtime=self._runtime or await choose_runtime(),
            images=self._images,
            cdi=CdiRegistry([self._root / "cdi"]),
            boot_id=self._boot_id,
        )
        return PodServices(
            api=self._api,
            resources=resources,
            starter=starter,
            reporter=recorder,
            times=self._times.pods,
        )

    def _driver_changed(self, driver: str) -> None:
        if self.plugins.is_live(driver):
            self._wiper.driver_back(driver)
        else:
            self._wiper.driver_gone(driver)

    async def _wipe(self) -> None:
        await self._wiper.wipe_all()
        await self._wiper.run()

    async def _sweep(self, pods: Informer, resources: PodResources) -> None:
        """Claims of Pods that vanished while no kubelet ran."""
        await pods.wait_synced()
        while True:
            live = {body["metadata"]["uid"] for body in pods.items.values()}
            await resources.sweep(live | self._workers.keys())
            await asyncio.sleep(self._times.sweep_s)

    def _take(self, change: Change, services: PodServices, group: asyncio.TaskGroup) -> None:
        uid = change.object["metadata"]["uid"]
        worker = self._workers.get(uid)
        if change.type == "deleted":
            if worker is not None:
                worker.vanish()
        elif worker is not None:
            worker.update(change.object)
        elif change.type == "added":
            directory = self._root / "pods" / uid
            self._directories[change.key] = directory
            worker = PodWorker(change.object, services, directory=directory)
            self._workers[uid] = worker
            group.create_task(self._work(uid, worker), name=f"pod {'/'.join(change.key)}")

    async def _work(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            # The root of a Pod's task: one Pod must not take the node down.
            log.exception("pod handling failed", pod=repr(worker))
        finally:
            del self._workers[uid]


async def choose_runtime() -> ContainerRuntime:
    """Containers in namespaces where the machine allows them, else the interpreter."""
    refused = await asyncio.to_thread(namespaces_refused)
    if not refused:
        return NamespaceRuntime()
    log.warning("containers are interpreted: no namespaces on this machine", cause=refused)
    return InterpretedRuntime(reason=refused)
