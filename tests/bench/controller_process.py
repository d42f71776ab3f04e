"""The real controller as a process, with what a production image has, and what is seen of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from nvdra_api.names import NAMESPACE
from nvdra_sim.cluster.parent_death import die_with_this_process

from .figures import cpu_s, memory_mib
from .production import environ

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path


_PATIENCE_S: Final = 120.0
_FLAGS: Final = (
    *("--image-name", "nvdra:bench"),
    *("--log-verbosity-cd-daemon", "4"),
    *("--namespace", NAMESPACE),
)
ELECTION: Final = ("--leader-election-enabled", "true")
"""With the default times: 15 s for a lease, renewed every 2 s."""


class Served(Protocol):
    """An API server: what a service account needs to reach it."""

    @property
    def url(self) -> str: ...

    @property
    def ca_pem(self) -> str: ...

    @property
    def token(self) -> str: ...


class ControllerProcess:
    """`log` is the file that it writes its lines into."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def memory_mib(self) -> dict[str, float]:
        return memory_mib(self.pid)

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    async def said(self, words: str) -> float:
        """Wait until it has said these words; answers when that was seen, on the steady clock."""
        async with asyncio.timeout(_PATIENCE_S):
            while words not in self._log.read_text():
                if self._process.returncode is not None:
                    raise RuntimeError(f"the controller ended:\n{self._log.read_text()}")
                await asyncio.sleep(0.01)
        return time.monotonic()

    async def end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        await self._process.wait()


@asynccontextmanager
async def a_controller(
    python: Path,
    server: Served,
    root: Path,
    *flags: str,
    name: str = "controller-0",
    wrapped: Callable[[Sequence[str]], Sequence[str]] = lambda command: command,
) -> AsyncIterator[ControllerProcess]:
    """Killed at the end, if it still runs. `wrapped` makes the command one that becomes it."""
    account, log = root / "account", root / f"{name}.log"
    account.mkdir(exist_ok=True)
    (account / "ca.crt").write_text(server.ca_pem)
    (account / "token").write_text(server.token)
    host, port = server.url.removeprefix("https://").rsplit(":", 1)
    variables = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "POD_NAME": name}
    command = [str(python), "-m", "nvdra_operator.main", "--service-account-dir", str(account)]
    with log.open("wb") as lines:
        process = await asyncio.create_subprocess_exec(
            *wrapped([*command, *_FLAGS, *flags]),
            env=environ(**variables),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
            preexec_fn=die_with_this_process(),
        )
    try:
        yield ControllerProcess(process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
