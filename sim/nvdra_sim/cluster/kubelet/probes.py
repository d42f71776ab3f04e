"""HTTP probes of containers: whether a running container is ready.

Startup and readiness are asked; a container that fails its liveness probe is not restarted here.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nvdra_kube.api import Body

_DEFAULT_PERIOD_S: Final = 10.0
_DEFAULT_FAILURES: Final = 3


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """What a Pod's container asks for; one answer below 400 is success."""

    port: int
    path: str
    period_s: float
    timeout_s: float
    failures: int

    async def succeeds(self, address: str) -> bool:
        """One question, over a connection of its own."""
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(self.timeout_s):
                return await self._ask(address) < 400
        return False

    async def _ask(self, address: str) -> int:
        reader, writer = await asyncio.open_connection(address, self.port)
        try:
            lines = (f"GET {self.path} HTTP/1.1", f"Host: {address}", "Connection: close", "", "")
            writer.write("\r\n".join(lines).encode())
            await writer.drain()
            status = (await reader.readline()).split()
            return int(status[1]) if len(status) > 1 else 999
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def http_probe(container: Body, kind: str) -> HttpProbe | None:
    """The probe of that field of a container; None without one, or for one of another sort."""
    probe = container.get(kind) or {}
    action = probe.get("httpGet")
    if not action or not isinstance(action.get("port"), int):
        return None
    return HttpProbe(
        port=action["port"],
        path=action.get("path") or "/",
        period_s=float(probe.get("periodSeconds") or _DEFAULT_PERIOD_S),
        timeout_s=float(probe.get("timeoutSeconds") or 1),
        failures=int(probe.get("failureThreshold") or _DEFAULT_FAILURES),
    )


def is_probed(container: Body) -> bool:
    """Whether the container is not ready before a probe says so."""
    return bool(http_probe(container, "startupProbe") or http_probe(container, "readinessProbe"))


async def keep_probed(
    container: Body, *, address: str, report: Callable[[bool], Awaitable[None]]
) -> None:
    """Report readiness whenever it changes, as long as the container runs; cancelled at its end."""
    startup = http_probe(container, "startupProbe")
    while startup and not await startup.succeeds(address):  # noqa: ASYNC110 - asks a server
        await asyncio.sleep(startup.period_s)
    readiness = http_probe(container, "readinessProbe")
    if readiness is None:
        await report(True)
        return
    ready, failures = False, 0
    while True:
        failures = 0 if await readiness.succeeds(address) else failures + 1
        if ready != (failures < readiness.failures) and (failures == 0 or ready):
            ready = not ready
            await report(ready)
        await asyncio.sleep(readiness.period_s)
