"""Which DRA drivers are there: the kubelet's plugin registration (KEP-595) over `plugins_registry`.

A socket that appears is asked who it is, told whether it is accepted, and counts until its file
goes away. Per driver the instance registered last is used; a driver without any live connection
counts as gone.
"""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from nvdra_kube.backoff import Backoff
from nvdra_nodeagent.kubelet.proto import registration_pb2 as messages
from nvdra_nodeagent.kubelet.proto.registration_grpc import RegistrationStub
from nvdra_sim.cluster.kubelet.dra_client import CALL_LIMIT_S, KNOWN_SERVICES, DraClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = structlog.get_logger(__name__)

_Identity = tuple[int, int]
"""Inode and bind time of a socket: a socket that was re-created is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationTimes:
    """The kubelet's timers in seconds; only `scan_s` is shorter than there (inotify plus 1 s)."""

    scan_s: float = 0.1
    dial_limit_s: float = 10.0
    info_limit_s: float = 1.0
    notify_limit_s: float = 5.0
    retry_first_s: float = 0.5
    retry_limit_s: float = 122.0
    connection_check_s: float = 0.5


class RegistrationRefused(Exception):
    """A plugin is not accepted; the text is what it is told."""


class PluginRegistry:
    """The plugins below `directory`. `run` belongs to a task of the owner.

    `on_change` is called with a driver's name whenever the driver may have come or gone.
    """

    def __init__(
        self,
        directory: Path,
        *,
        on_change: Callable[[str], None] = lambda driver: None,
        times: RegistrationTimes | None = None,
        call_limit_s: float = CALL_LIMIT_S,
    ) -> None:
        self._directory = directory
        self._on_change = on_change
        self._times = times or RegistrationTimes()
        self._call_limit_s = call_limit_s
        self._sockets: dict[Path, tuple[_Identity, asyncio.Task[None]]] = {}
        # In the order of registration, oldest first.
        self._clients: list[DraClient] = []
        self._changed = asyncio.Condition()

    def client(self, driver: str) -> DraClient | None:
        """The instance to call: registered last among the connected ones; None: not registered."""
        mine = [client for client in self._clients if client.driver == driver]
        connected = [client for client in mine if client.connected]
        candidates = connected or mine
        return candidates[-1] if candidates else None

    def is_live(self, driver: str) -> bool:
        return any(client.connected for client in self._clients if client.driver == driver)

    async def wait_registered(self, driver: str) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.client(driver) is not None)

    async def wait_gone(self, driver: str) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.client(driver) is None)

    async def run(self) -> None:
        """Follow the directory until cancelled; then every plugin is forgotten."""
        try:
            while True:
                self._adopt(await asyncio.to_thread(scan, self._directory))
                await asyncio.sleep(self._times.scan_s)
        finally:
            await self._forget(list(self._sockets))

    def _adopt(self, found: dict[Path, _Identity]) -> None:
        for path, (identity, task) in list(self._sockets.items()):
            if task.done():
                _report_end(task)
                del self._sockets[path]
            elif found.get(path) != identity and not task.cancelling():
                # A re-created socket waits until its predecessor is deregistered.
                task.cancel()
        for path, identity in found.items():
            if path not in self._sockets:
                task = asyncio.create_task(self._serve(path), name=f"plugin {path.name}")
                self._sockets[path] = (identity, task)

    async def _forget(self, paths: list[Path]) -> None:
        tasks = [self._sockets.pop(path)[1] for path in paths]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, path: Path) -> None:
        """One socket from its appearance to its end (cancellation)."""
        backoff = Backoff(first_s=self._times.retry_first_s, limit_s=self._times.retry_limit_s)
        while True:
            try:
                client = await self._register(path)
            except (RegistrationRefused, OSError, TimeoutError) as exc:
                delay_s = backoff.failed()
                log.warning(
                    "plugin not registered", socket=str(path), cause=_words(exc), retry_s=delay_s
                )
                await asyncio.sleep(delay_s)
                continue
            try:
                await self._keep_connected(client)
            finally:
                await self._remove(client)

    async def _register(self, path: Path) -> DraClient:
        async with Channel(path=str(path)) as channel:
            async with asyncio.timeout(self._times.dial_limit_s):
                await channel.__connect__()
            stub = RegistrationStub(channel)
            info = await self._ask(stub)
            try:
                service = choose_service(info)
                endpoint = info.endpoint or str(path)
                if any(client.endpoint == endpoint for client in self._of(info.name)):
                    text = f"driver {info.name} is registered at {endpoint} by another socket"
                    raise RegistrationRefused(text)
            except RegistrationRefused as exc:
                await self._notify(stub, messages.RegistrationStatus(error=str(exc)))
                raise
            client = DraClient(
                driver=info.name,
                endpoint=endpoint,
                service=service,
                call_limit_s=self._call_limit_s,
            )
            return await self._announce(client, stub)

    async def _announce(self, client: DraClient, stub: RegistrationStub) -> DraClient:
        await client.connect()
        await self._add(client)
        try:
            await self._notify(stub, messages.RegistrationStatus(plugin_registered=True))
        except BaseException:
            await self._remove(client)
            raise
        log.info("plugin registered", driver=client.driver, service=client.service)
        return client

    async def _ask(self, stub: RegistrationStub) -> messages.PluginInfo:
        try:
            info: messages.PluginInfo = await stub.GetInfo(
                messages.InfoRequest(), timeout=self._times.info_limit_s
            )
        except (GRPCError, StreamTerminatedError) as exc:
            raise RegistrationRefused(f"GetInfo failed: {exc}") from exc
        return info

    async def _notify(self, stub: RegistrationStub, status: messages.RegistrationStatus) -> None:
        try:
            await stub.NotifyRegistrationStatus(status, timeout=self._times.notify_limit_s)
        except (GRPCError, StreamTerminatedError) as exc:
            raise RegistrationRefused(f"NotifyRegistrationStatus failed: {exc}") from exc

    async def _keep_connected(self, client: DraClient) -> None:
        was_connected = True
        while True:
            if client.connected != was_connected:
                was_connected = client.connected
                await self._tell(client.driver)
            await asyncio.sleep(self._times.connection_check_s)
            if not client.connected:
                await client.connect()

    def _of(self, driver: str) -> list[DraClient]:
        return [client for client in self._clients if client.driver == driver]

    async def _add(self, client: DraClient) -> None:
        self._clients.append(client)
        await self._tell(client.driver)

    async def _remove(self, client: DraClient) -> None:
        self._clients.remove(client)
        client.close()
        log.info("plugin deregistered", driver=client.driver, endpoint=client.endpoint)
        await self._tell(client.driver)

    async def _tell(self, driver: str) -> None:
        self._on_change(driver)
        async with self._changed:
            self._changed.notify_all()


def choose_service(info: messages.PluginInfo) -> str:
    """The DRA service to call: the first of the plugin's list that is known (kubelet 1.34+)."""
    if info.type != "DRAPlugin":
        raise RegistrationRefused(f"no handler for plugin type {info.type!r}; DRA is the only one")
    if not info.name:
        raise RegistrationRefused("the plugin gives no driver name")
    for service in info.supported_versions:
        if service in KNOWN_SERVICES:
            return service
    offered = ", ".join(info.supported_versions) or "nothing"
    raise RegistrationRefused(
        f"driver {info.name} offers {offered}; this kubelet knows {', '.join(KNOWN_SERVICES)}"
    )


def scan(directory: Path) -> dict[Path, _Identity]:
    """Sockets below `directory`, sub-directories included, names with a leading dot left out."""
    found: dict[Path, _Identity] = {}
    todo = [directory]
    while todo:
        try:
            for path in todo.pop().iterdir():
                if path.name.startswith("."):
                    continue
                status = os.lstat(path)
                if stat.S_ISDIR(status.st_mode):
                    todo.append(path)
                elif stat.S_ISSOCK(status.st_mode):
                    found[path] = (status.st_ino, status.st_mtime_ns)
        except OSError:
            # Went away while it was looked at: the next scan says what is true.
            continue
    return found


def _report_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        log.error("plugin handling ended", task=task.get_name(), exc_info=task.exception())


def _words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
