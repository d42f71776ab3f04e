"""The one door through which this program writes: shut as soon as it is not the leader.

Time alone decides, so that the door shuts also while the election cannot run.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from nvdra_kube.api import Resource
from nvdra_kube.errors import ApiError
from nvdra_kube.lease import TRACE_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from nvdra_kube.api import KubeApi

_P = ParamSpec("_P")
_T = TypeVar("_T")


class NotLeading(ApiError):
    """A write was refused on this side: another replica may be the leader by now."""


class WriteGate:
    """Open until a deadline that moves on with each renewal of the lease. Any thread may ask."""

    def __init__(
        self, deadline_s: Callable[[], float], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._deadline_s = deadline_s
        self._clock = clock
        self.refused = 0

    @classmethod
    def always_open(cls) -> WriteGate:
        """For a controller that is the only one."""
        return cls(lambda: float("inf"))

    @property
    def left_s(self) -> float:
        """How long writes are allowed yet; not positive when they are not."""
        return self._deadline_s() - self._clock()

    def check(self, what: str) -> float:
        """Seconds that a write may take. Raises `NotLeading` when it may not begin at all."""
        left_s = self.left_s
        if left_s <= 0:
            self.refused += 1
            raise NotLeading(f"{what}: not written, this replica is not the leader any more")
        return left_s

    async def guard(self, what: str, write: Callable[[], Awaitable[_T]]) -> _T:
        """Do a write, and break it off where the leadership ends meanwhile."""
        left_s = self.check(what)
        if left_s == float("inf"):
            return await write()
        # A task, for only the waiting is bounded: a renewal meanwhile gives the write more time.
        writing = asyncio.ensure_future(write())
        try:
            while not (await asyncio.wait((writing,), timeout=left_s))[0]:
                left_s = self.left_s
                if left_s <= TRACE_S:
                    self.refused += 1
                    raise NotLeading(f"{what}: broken off, the leadership ended")
        except BaseException:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            raise
        return writing.result()


class GatedApi:
    """An API (`KubeApi`) whose writes go through the gate; reading is free."""

    def __init__(self, api: KubeApi, gate: WriteGate) -> None:
        self.get, self.list, self.watch = api.get, api.list, api.watch
        self.server_version = api.server_version
        self.create = _guarded("create", api.create, gate)
        self.update = _guarded("update", api.update, gate)
        self.patch = _guarded("patch", api.patch, gate)
        self.delete = _guarded("delete", api.delete, gate)


def _guarded(
    verb: str, write: Callable[_P, Awaitable[_T]], gate: WriteGate
) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """The same call, behind the gate."""

    async def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        what = " ".join((verb, *map(_named, args[:2])))
        return await gate.guard(what, lambda: write(*args, **kwargs))

    return guarded


def _named(argument: object) -> str:
    """What a call is about, in a word: a resource, a name, or an object with one."""
    if isinstance(argument, Resource):
        return argument.plural
    if isinstance(argument, dict):
        return str(argument["metadata"].get("name") or "")
    return str(argument)
