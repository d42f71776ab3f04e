"""What the agents of all drivers have around their claims: sockets, role, duties, health, end."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import structlog

from nvdra_nodeagent import __version__
from nvdra_nodeagent.claims.locks import LockFile
from nvdra_nodeagent.claims.service import DRAIN_S as CLAIMS_DRAIN_S
from nvdra_nodeagent.duties import Duty, do_all, standing_still
from nvdra_nodeagent.errors import Permanent
from nvdra_nodeagent.kubelet import leftovers
from nvdra_nodeagent.kubelet.names import SocketNames
from nvdra_nodeagent.kubelet.plugin import (
    DRAIN_BESIDE_ANOTHER_S,
    DRAIN_S,
    KubeletPlugin,
    longest_stop_s,
)
from nvdra_nodeagent.reporting.desk import CLOSE_S
from nvdra_nodeagent.role import Role

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nvdra_api.gates import FeatureGates
    from nvdra_nodeagent.claims.service import NodeClaims
    from nvdra_nodeagent.program.metrics import AgentMetrics
    from nvdra_nodeagent.program.options import Options
    from nvdra_nodeagent.reporting.desk import ReportDesk
    from nvdra_nodeagent.slices.publisher import Publisher

log = structlog.get_logger(__name__)

WATCH_SILENCE_S = 600.0
"""A live watch is heard of at least every five minutes, when it is opened anew."""

SWEEP_PATIENCE_S = 1800.0
"""Sweeps are ten minutes apart, and a claim that is given back then may take its time."""

CLAIM_PATIENCE_S = 300.0
"""Work on a claim is tried for half a minute; what takes this long hangs in a disk or a driver."""


_REST_S: Final = 2.0
"""For ending duties, and the HTTP endpoint."""


class NodeAgent:
    """Serves the kubelet for one driver. Drivers differ in their claims and in further duties."""

    def __init__(
        self,
        options: Options,
        *,
        driver: str,
        gates: FeatureGates,
        metrics: AgentMetrics,
        claims: NodeClaims,
        reports: ReportDesk,
        publisher: Publisher,
        duties: Iterable[Duty],
        beside_others: bool,
    ) -> None:
        """`duties` are those that only this driver has. `beside_others`: the kubelet keeps several
        instances of a driver, so that this one has sockets of its own, named after its pod, and
        leaves calls in flight the time they need."""
        self._options = options
        self._driver = driver
        self._gates = gates
        self._metrics = metrics
        self._beside_others = beside_others
        self.claims = claims
        self.reports = reports
        self.publisher = publisher
        state_dir = state_directory(options, driver)
        self.kubelet = KubeletPlugin(
            driver=driver,
            claims=claims,
            sockets=_socket_names(options, driver, beside_others=beside_others),
            drain_s=_drain_s(beside_others=beside_others),
        )
        self._role_locks = LockFile(state_dir / "locks")
        self.role = Role(
            self._role_locks,
            state_dir=state_dir,
            identity=f"pod {options.pod_uid or '-'} process {os.getpid()} version {__version__}",
            registered=self.kubelet.registration.registered,
            on_change=metrics.role_changed,
        )
        self.duties = (*duties, *self._usual_duties())
        metrics.watch_fences(claims.fences)
        metrics.watch_tombstones(claims.tombstones)

    def _usual_duties(self) -> tuple[Duty, ...]:
        """What goes on in the background in every agent; one line each."""
        return (
            Duty(
                "publisher",
                self.publisher.run,
                in_role=True,
                last_turn_s=lambda: self.publisher.last_turn_s,
                patience_s=WATCH_SILENCE_S,
            ),
            Duty(
                "sweeper",
                self.claims.keep_swept,
                in_role=True,
                last_turn_s=self.claims.last_sweep_s,
                patience_s=SWEEP_PATIENCE_S,
            ),
            Duty("reporter", self.reports.run, last_turn_s=self.reports.last_turn_s),
            Duty(
                "verifier",
                self.claims.keep_verified,
                in_role=True,
                last_turn_s=self.claims.last_verify_s,
            ),
            Duty(
                "undertaker",
                self.claims.keep_finished,
                in_role=True,
                last_turn_s=self.claims.last_finish_s,
            ),
            Duty("dead sockets", self._sweep_sockets, in_role=True),
        )

    async def take_over(self) -> None:
        """Read what an earlier driver has written down; before the first claim."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then leave in order: role, sockets, running claims, the rest.

        Raises `AgentError` when a socket, a port or the state directory cannot be had, and
        `ConfigurationError` when the address for metrics cannot.
        """
        for gate in self._gates.without_effect():
            log.warning("feature gate has no effect in this version", gate=gate)
        async with AsyncExitStack() as stack:
            stack.callback(self._role_locks.close)
            stack.callback(self.claims.close)
            stack.push_async_callback(self.reports.close)
            await self.take_over()
            await self.claims.start()
            stack.push_async_callback(self.claims.drain)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            always = tasks.create_task(self._do(in_role=False), name="duties")
            in_role = tasks.create_task(
                self.role.run(lambda: self._do(in_role=True)), name="duties in role"
            )
            stack.callback(always.cancel)
            stack.callback(in_role.cancel)
            await self._serve(stack)
            await stop.wait()
            log.info("stopping")
            in_role.cancel()
            await asyncio.wait([in_role])
            if not self._beside_others:
                self.claims.hurry()

    @property
    def stop_limit_s(self) -> float:
        """By when `run` has ended after `stop` was set, unless a thread hangs."""
        return stop_limit_s(beside_others=self._beside_others)

    async def _do(self, *, in_role: bool) -> None:
        await do_all(duty for duty in self.duties if duty.in_role is in_role)

    async def _sweep_sockets(self) -> None:
        await leftovers.keep_swept(
            self._driver,
            plugin_dir=self.kubelet.endpoint.parent,
            registrar_dir=self.kubelet.registration_socket.parent,
        )

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
            from nvdra_kube.endpoints import http_endpoint

            endpoint = http_endpoint(
                self._options.http_endpoint,
                metrics_path=self._options.metrics_path,
                registry=self._metrics.registry,
                healthy=self._unhealthy,
                ready=self._unready,
            )
            await stack.enter_async_context(endpoint)

    def describe(self) -> str:
        """What the agent is at, in lines for people."""
        now_s = asyncio.get_running_loop().time()
        duties = [
            f"duty: {duty.name}, last came round {duty.still_s(now_s=now_s):.1f} s ago"
            for duty in self.duties
            if duty.last_turn_s and duty.pulse.began_s is not None
        ]
        waiting = f"reports: {self.reports.reporter.waiting} waiting"
        return "\n".join([*duties, waiting, *self.claims.describe(now_s=now_s)])

    def unready(self) -> str:
        """What only this driver waits for before it can be used; "" for nothing."""
        return ""

    def _unhealthy(self) -> str:
        """Answering at all proves that the event loop turns; this names what hangs beside it."""
        now_s = asyncio.get_running_loop().time()
        name, age_s = self.claims.oldest_work(now_s=now_s)
        hanging = f"{name} has been going on for {age_s:.0f} s" if age_s > CLAIM_PATIENCE_S else ""
        return "; ".join(filter(None, (standing_still(self.duties, now_s=now_s), hanging)))

    def _unready(self) -> str:
        if not self.kubelet.registration.registered.is_set():
            refusal = self.kubelet.registration.refusal
            return f"not registered with the kubelet {refusal}".strip()
        if own := self.unready():
            return own
        if self.role.held and not self.publisher.is_published:
            return f"slices are not published {self.publisher.last_error or ''}".strip()
        return ""


def stop_limit_s(*, beside_others: bool) -> float:
    """As `NodeAgent.stop_limit_s`."""
    kubelet_s = longest_stop_s(_drain_s(beside_others=beside_others))
    return kubelet_s + CLAIMS_DRAIN_S + CLOSE_S + _REST_S


def state_directory(options: Options, driver: str) -> Path:
    """The directory of the driver's state and socket."""
    return options.kubelet_plugins_directory_path / driver


def make_directories(options: Options, driver: str) -> Path:
    """Make the state directory, which is returned, and the one for CDI files.

    :raises Permanent: the state directory cannot be made.
    """
    state_dir = state_directory(options, driver)
    _make_directory(state_dir)
    try:
        _make_directory(options.cdi_root)
    except Permanent as error:  # each prepare will say so; unprepare and slices go on
        log.error("CDI directory unusable", cause=str(error))
    return state_dir


def _drain_s(*, beside_others: bool) -> float:
    return DRAIN_BESIDE_ANOTHER_S if beside_others else DRAIN_S


def _socket_names(options: Options, driver: str, *, beside_others: bool) -> SocketNames:
    plugin_dir = state_directory(options, driver)
    registrar_dir = options.kubelet_registrar_directory_path
    if not beside_others:
        return SocketNames.fixed(driver, plugin_dir=plugin_dir, registrar_dir=registrar_dir)
    return SocketNames.of_pod(
        options.pod_uid, driver=driver, plugin_dir=plugin_dir, registrar_dir=registrar_dir
    )


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as exc:
        raise Permanent(
            "DirectoryUnusable",
            f"cannot create {path}: {exc.strerror}",
            hint="check that its parent exists and is writable for the driver",
        ) from exc
