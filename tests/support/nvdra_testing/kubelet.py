"""A scripted claim service, and the kubelet's side of a driver's sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from grpclib.client import Channel

from nvdra_nodeagent.claims.model import ClaimRef, PreparedDevice
from nvdra_nodeagent.errors import AgentError
from nvdra_nodeagent.kubelet.names import SocketNames
from nvdra_nodeagent.kubelet.plugin import KubeletPlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

Outcome = tuple[PreparedDevice, ...] | AgentError


class ScriptedClaims:
    """Answers each claim name with what the test put there; `hold` keeps calls waiting."""

    def __init__(self, outcomes: Mapping[str, Outcome] | None = None) -> None:
        self._outcomes = dict(outcomes or {})
        self.prepared: list[ClaimRef] = []
        self.unprepared: list[ClaimRef] = []
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, Outcome]:
        self.started.set()
        await self.go_on.wait()
        self.prepared += claims
        return {ref.uid: self._outcomes.get(ref.name, ()) for ref in claims}

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, AgentError | None]:
        self.unprepared += claims
        outcomes = {ref.uid: self._outcomes.get(ref.name) for ref in claims}
        return {
            uid: outcome if isinstance(outcome, AgentError) else None
            for uid, outcome in outcomes.items()
        }


def a_plugin(root: Path, claims: ScriptedClaims, **options: float) -> KubeletPlugin:
    """It gives calls 5 s to finish unless `options` say another `drain_s`."""
    for name in ("p", "r"):
        (root / name).mkdir(exist_ok=True)
    return KubeletPlugin(
        driver="gpu.nvidia.com",
        claims=claims,
        sockets=SocketNames.fixed(
            "gpu.nvidia.com", plugin_dir=root / "p", registrar_dir=root / "r"
        ),
        **{"drain_s": 5.0, **options},
    )


@asynccontextmanager
async def dial(socket: Path) -> AsyncIterator[Channel]:
    async with Channel(path=str(socket)) as channel:
        yield channel
