"""The kubelet's side: claims by lane, one connection, calls one after another or at once."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grpclib.client import Channel

from nvdra_nodeagent.kubelet.proto import dra_v1_pb2 as messages
from nvdra_nodeagent.kubelet.proto.dra_v1_grpc import DRAPluginStub

from .figures import latencies_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

CALL_LIMIT_S = 45.0


@dataclass(slots=True)
class Timings:
    """Durations of the calls of one round, and of the round."""

    prepare_s: list[float] = field(default_factory=list)
    unprepare_s: list[float] = field(default_factory=list)
    whole_s: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Latencies of both calls, and prepared and unprepared claims per second."""
        return {
            "prepare": latencies_ms(self.prepare_s),
            "unprepare": latencies_ms(self.unprepare_s),
            "claims_per_s": len(self.prepare_s) / self.whole_s,
        }


class Driver:
    """One driver behind its socket. `claims` holds references by lane; all may be used again."""

    def __init__(self, stub: Any, claims: Sequence[Sequence[Mapping[str, str]]]) -> None:
        self._stub = stub
        self._claims = claims
        self._next = [0] * len(claims)

    async def loop(self, lanes: int, *, cycles: int) -> Timings:
        """So many calls in flight, one in each of the first lanes: prepare, unprepare, next."""
        return await self.lanes(range(lanes), cycles=cycles)

    async def lanes(self, lanes: Sequence[int], *, cycles: int) -> Timings:
        """As `loop`, in these lanes."""
        timings = Timings()
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(
                    self._lane(lane, cycles // len(lanes), timings), name=f"lane {lane}"
                )
        timings.whole_s = time.perf_counter() - started
        return timings

    async def waves(self, width: int, *, cycles: int) -> Timings:
        """So many prepares start together; when all are done, as many unprepares."""
        timings = Timings()
        started = time.perf_counter()
        for _ in range(cycles // width):
            claims = [self._take(lane) for lane in range(width)]
            await asyncio.gather(*(self.prepare(claim, timings) for claim in claims))
            await asyncio.gather(*(self.unprepare(claim, timings) for claim in claims))
        timings.whole_s = time.perf_counter() - started
        return timings

    async def prepare(self, claim: Mapping[str, str], timings: Timings) -> None:
        request = messages.NodePrepareResourcesRequest(claims=[messages.Claim(**claim)])
        started = time.perf_counter()
        answer = await self._stub.NodePrepareResources(request, timeout=CALL_LIMIT_S)
        timings.prepare_s.append(time.perf_counter() - started)
        entry = answer.claims[claim["uid"]]
        if entry.error or not entry.devices:
            raise RuntimeError(f"prepare failed: {entry.error or 'no devices'}")

    async def unprepare(self, claim: Mapping[str, str], timings: Timings) -> None:
        request = messages.NodeUnprepareResourcesRequest(claims=[messages.Claim(**claim)])
        started = time.perf_counter()
        answer = await self._stub.NodeUnprepareResources(request, timeout=CALL_LIMIT_S)
        timings.unprepare_s.append(time.perf_counter() - started)
        if error := answer.claims[claim["uid"]].error:
            raise RuntimeError(f"unprepare failed: {error}")

    async def prepare_all(self, claims: Sequence[Mapping[str, str]]) -> None:
        """All in one call. Raises `RuntimeError` when one of them fails."""
        request = messages.NodePrepareResourcesRequest(claims=[messages.Claim(**c) for c in claims])
        answer = await self._stub.NodePrepareResources(request, timeout=CALL_LIMIT_S)
        _raise_first(answer, claims)

    async def unprepare_all(self, claims: Sequence[Mapping[str, str]]) -> None:
        """As `prepare_all`."""
        request = messages.NodeUnprepareResourcesRequest(
            claims=[messages.Claim(**claim) for claim in claims]
        )
        answer = await self._stub.NodeUnprepareResources(request, timeout=CALL_LIMIT_S)
        _raise_first(answer, claims)

    def take(self, lane: int) -> Mapping[str, str]:
        """The next claim of this lane."""
        return self._take(lane)

    async def _lane(self, lane: int, cycles: int, timings: Timings) -> None:
        for _ in range(cycles):
            claim = self._take(lane)
            await self.prepare(claim, timings)
            await self.unprepare(claim, timings)

    def _take(self, lane: int) -> Mapping[str, str]:
        claims = self._claims[lane]
        claim = claims[self._next[lane] % len(claims)]
        self._next[lane] += 1
        return claim


def _raise_first(answer: Any, claims: Sequence[Mapping[str, str]]) -> None:
    for claim in claims:
        if claim["uid"] not in answer.claims or answer.claims[claim["uid"]].error:
            raise RuntimeError(f"{claim['name']}: {answer.claims[claim['uid']].error}")


@asynccontextmanager
async def connected(
    socket: Path, claims: Sequence[Sequence[Mapping[str, str]]]
) -> AsyncIterator[Driver]:
    """One connection, as the kubelet keeps one."""
    async with Channel(path=str(socket)) as channel:
        yield Driver(DRAPluginStub(channel), claims)
