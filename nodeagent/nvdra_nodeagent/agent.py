"""The GPU driver of one node: wires the rooms together and runs them until told to stop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from nvdra_api.names import GPU_DRIVER
from nvdra_kube.backoff import Backoff
from nvdra_kube.errors import ApiError, ServerError, TooManyRequests, Unreachable
from nvdra_kube.semver import SemverError, server_minor
from nvdra_nodeagent.cdi.builder import CdiBuilder
from nvdra_nodeagent.cdi.claim_files import ClaimFiles
from nvdra_nodeagent.cdi.store import CdiStore
from nvdra_nodeagent.claims.patience import DEFAULT_BUDGET_S
from nvdra_nodeagent.claims.service import NodeClaims
from nvdra_nodeagent.errors import Permanent
from nvdra_nodeagent.inventory.keeper import InventoryKeeper
from nvdra_nodeagent.kubelet.plugin import KubeletPlugin
from nvdra_nodeagent.slices.planner import plan_pool
from nvdra_nodeagent.slices.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from nvdra_api.gates import FeatureGates
    from nvdra_kube.api import KubeApi
    from nvdra_nodeagent.hardware.ports import Machine
    from nvdra_nodeagent.inventory.model import Inventory
    from nvdra_nodeagent.program.metrics import AgentMetrics
    from nvdra_nodeagent.program.options import Options
    from nvdra_nodeagent.slices.errors import FieldsDropped, SlicesRefused

log = structlog.get_logger(__name__)

_OLDEST_SERVER = (0, 0)
WATCH_SILENCE_S = 600.0
"""A live watch is heard of at least every five minutes, when it is opened anew."""


class GpuAgent:
    """Publishes the node's GPUs and prepares claims for `gpu.nvidia.com`."""

    def __init__(
        self,
        options: Options,
        *,
        api: KubeApi,
        machine: Machine,
        gates: FeatureGates,
        metrics: AgentMetrics,
        boot_id: str,
        retry_budget_s: float = DEFAULT_BUDGET_S,
    ) -> None:
        self._options = options
        self._api = api
        self._gates = gates
        self._metrics = metrics
        self._server: tuple[int, int] | None = None
        self._announced: set[str] = set()
        plugin_dir = options.kubelet_plugins_directory_path / GPU_DRIVER
        _make_directory(plugin_dir)
        try:
            _make_directory(options.cdi_root)
        except Permanent as error:  # each prepare will say so; unprepare and slices go on
            log.error("CDI directory unusable", cause=str(error))
        self.keeper = InventoryKeeper(machine, on_change=self._publish)
        self.claims = NodeClaims(
            api,
            driver=GPU_DRIVER,
            pool=options.node_name,
            inventory=lambda: self.keeper.current,
            cdi=ClaimFiles(CdiBuilder(machine), CdiStore(options.cdi_root)),
            state_dir=plugin_dir,
            gates=gates,
            boot_id=boot_id,
            observer=metrics,
            retry_budget_s=retry_budget_s,
        )
        self._list_attributes = gates["DRAListTypeAttributes"]
        self.publisher = Publisher(
            api, driver=GPU_DRIVER, node=options.node_name, on_degraded=self._degrade
        )
        metrics.count_slice_writes(self.publisher.writes)
        self.kubelet = KubeletPlugin(
            driver=GPU_DRIVER,
            claims=self.claims,
            plugin_dir=plugin_dir,
            registrar_dir=options.kubelet_registrar_directory_path,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then leave in order: sockets, running claims, the rest.

        Raises `AgentError` when a socket, a port or the state directory cannot be had.
        """
        for gate in self._gates.without_effect():
            log.warning("feature gate has no effect in this version", gate=gate)
        async with AsyncExitStack() as stack:
            stack.callback(self.claims.close)
            await self.claims.start()
            stack.push_async_callback(self.claims.drain)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            background = [
                tasks.create_task(work, name=name) for name, work in self._background().items()
            ]
            stack.callback(_cancel_all, background)
            await self._serve(stack)
            await stop.wait()
            log.info("stopping")
            self.claims.hurry()

    def _background(self) -> dict[str, Coroutine[object, object, None]]:
        return {
            "publisher": self.publisher.run(),
            "server version": self._learn_server(),
            "inventory": self.keeper.run(),
            "sweeper": self.claims.keep_swept(),
        }

    async def _serve(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self.kubelet)
        if self._options.healthcheck_port >= 0:
            # Here, not above: its client and messages are for liveness alone.
            from nvdra_nodeagent.kubelet.liveness import Liveness

            service = Liveness(
                registration=self.kubelet.registration_socket, endpoint=self.kubelet.endpoint
            )
            await stack.enter_async_context(service.served(port=self._options.healthcheck_port))
        if self._options.http_endpoint:
            # Here, not above: a web server costs 30 ms and 2 MiB where nobody asks for it.
            from nvdra_nodeagent.program.endpoints import http_endpoint

            endpoint = http_endpoint(
                self._options.http_endpoint,
                metrics_path=self._options.metrics_path,
                registry=self._metrics.registry,
                healthy=self._unhealthy,
                ready=self._unready,
            )
            await stack.enter_async_context(endpoint)

    async def _learn_server(self) -> None:
        """The server's version decides the slices' layout: nothing is published before."""
        version = await self._server_version()
        try:
            self._server = server_minor(version)
        except SemverError as error:
            log.warning("API server's version not known, slices get the plain form", cause=error)
            self._server = _OLDEST_SERVER
        else:
            for warning in self._gates.cluster_warnings(self._server):
                log.warning("feature gate and cluster do not fit", cause=warning, server=version)
        if self.keeper.is_known:
            self._publish(self.keeper.current)

    async def _server_version(self) -> str:
        """The node may be up before its API server; "" where the server does not tell."""
        backoff = Backoff()
        while True:
            try:
                return await self._api.server_version()
            except (Unreachable, ServerError, TooManyRequests) as error:
                delay_s = backoff.failed(at_least_s=error.retry_after_s or 0.0)
                log.warning("API server not reached", cause=str(error), retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
            except ApiError as error:
                log.warning("API server's version refused", cause=str(error))
                return ""

    def _publish(self, inventory: Inventory) -> None:
        if self._server is None:
            return
        plan = plan_pool(
            inventory,
            node=self._options.node_name,
            server=self._server,
            list_attributes=self._list_attributes,
        )
        self._metrics.defects(len(inventory.defects) + len(plan.defects))
        for defect in plan.defects:
            log.warning("device left out", device=defect.device, cause=defect.cause)
        self._announce([device.name for content in plan.slices for device in content.devices])
        self.publisher.desire(plan.slices)

    def _degrade(self, problem: FieldsDropped | SlicesRefused) -> None:
        """Better a pool in the plain form than none: what the cluster refuses is left out."""
        self._metrics.publish_failed()
        log.error("the API server does not take the slices as planned", cause=str(problem))
        if self._list_attributes:
            self._list_attributes = False
            self._publish(self.keeper.current)

    def _announce(self, names: list[str]) -> None:
        for name in names:
            if name not in self._announced:
                # The name stands inside the event: scripts look for exactly this text.
                log.info(f"About to announce device {name}")  # noqa: G004
        self._announced = set(names)

    def _unhealthy(self) -> str:
        stuck_s = asyncio.get_running_loop().time() - self.publisher.last_turn_s
        if self.publisher.last_turn_s and stuck_s > WATCH_SILENCE_S:
            return f"publishing ResourceSlices has been stuck for {stuck_s:.0f} s"
        return ""

    def _unready(self) -> str:
        if not self.kubelet.registration.registered.is_set():
            refusal = self.kubelet.registration.refusal
            return f"not registered with the kubelet {refusal}".strip()
        if not self.publisher.is_published:
            return f"slices are not published {self.publisher.last_error or ''}".strip()
        return ""


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as exc:
        raise Permanent(
            "DirectoryUnusable",
            f"cannot create {path}: {exc.strerror}",
            hint="check that its parent exists and is writable for the driver",
        ) from exc


def _cancel_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
