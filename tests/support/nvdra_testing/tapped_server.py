"""A line of one client to a shared store, over HTTPS: calls are noted as they arrive, whatever part
of the client sends them, and the line may go bad."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nvdra_kube.errors import ApiError
from nvdra_sim.cluster.apiserver import ApiServer
from nvdra_sim.cluster.apiserver.refusals import for_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from nvdra_sim.cluster.apiserver import ClusterStore
    from nvdra_sim.cluster.apiserver.front import Call
    from nvdra_testing.lived_time import LivedTime

Line: TypeAlias = Literal["good", "hangs", "resets"]
_READS = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call as it arrived. `status` 0: it was never answered. `lived_s` is when, by a clock that
    stands still with the machine."""

    verb: str
    resource: str
    name: str
    at_s: float
    lived_s: float
    by: str
    body: Any
    status: int = 0

    @property
    def writes(self) -> bool:
        return self.verb not in _READS

    @property
    def is_of_lease(self) -> bool:
        """Whether it wrote a lease; `holder` says whose that is now."""
        return self.resource == "leases" and self.writes and self.status in (200, 201)

    @property
    def holder(self) -> str:
        return str(self.body["spec"].get("holderIdentity") or "")

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.name}"


class TappedServer(ApiServer):
    """`line` is what becomes of calls, of those about `about` only where it says so. `refused` says
    with which status to refuse a call, `deadly` where the client is to die: from then on nobody
    answers it. `skew_s` is how far the client's clock is off."""

    def __init__(self, store: ClusterStore, *, lived: LivedTime) -> None:
        super().__init__(store)
        self.line: Line = "good"
        self._lived = lived
        self.about = ""
        self.arrived: list[Arrival] = []
        self.died = asyncio.Event()
        self.skew_s = 0.0
        self.refused: Callable[[Arrival], int] = lambda _: 0
        self.deadly: Callable[[Arrival], Literal["", "before", "after"]] = lambda _: ""

    @property
    def writes(self) -> list[Arrival]:
        return [one for one in self.arrived if one.writes]

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._suffer(request)
        return await super()._respond(request)

    async def _serve(self, request: web.BaseRequest, call: Call) -> web.Response:
        self._shift(call)
        arrival = Arrival(
            verb=call.verb,
            resource=call.kind.plural,
            name=call.name or _name_in(call.body),
            at_s=asyncio.get_running_loop().time(),
            lived_s=self._lived.now_s(),
            by=request.headers.get("User-Agent", ""),
            body=call.body,
        )
        place = len(self.arrived)
        self.arrived.append(arrival)
        fate = self.deadly(arrival)
        if fate == "before":
            await self._die()
        try:
            if status := self.refused(arrival):
                raise for_status(status, "refused by the test")
            response = await super()._serve(request, call)
        except ApiError as error:
            self.arrived[place] = replace(arrival, status=error.status)
            raise
        self.arrived[place] = replace(arrival, status=response.status)
        if fate == "after":
            await self._die()
        return response

    async def _suffer(self, request: web.BaseRequest) -> None:
        line = self.line if self.about in request.path else "good"
        if self.died.is_set() or line == "hangs":
            await asyncio.Event().wait()
        if line == "resets" and request.transport:
            request.transport.abort()
            await asyncio.Event().wait()

    async def _die(self) -> None:
        self.died.set()
        await asyncio.Event().wait()

    def _shift(self, call: Call) -> None:
        """The times that the client's clock put into a lease."""
        if call.kind.plural == "leases" and isinstance(call.body, dict):
            for name in ("renewTime", "acquireTime"):
                with suppress(KeyError):
                    told = datetime.fromisoformat(call.body["spec"][name])
                    shifted = told + timedelta(seconds=self.skew_s)
                    call.body["spec"][name] = shifted.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _name_in(body: Any) -> str:
    meta = body.get("metadata") if isinstance(body, dict) else None
    return str((meta or {}).get("name") or "")
