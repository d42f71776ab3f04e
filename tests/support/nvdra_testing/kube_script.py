"""A Kubernetes API that answers lists and watches from a script, one turn per call.

When the script is used up, further calls hang, as on a quiet cluster, and `finished` returns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from nvdra_kube.api import Body, Resource, WatchEvent
from nvdra_testing.kube_stub import KubeStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def an_object(name: str, *, version: str = "1", uid: str = "", **fields: Any) -> Body:
    """A small object; `uid` follows from the name unless given."""
    metadata = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": version}
    return {"metadata": metadata, **fields}


def added(name: str, **kwargs: Any) -> WatchEvent:
    return WatchEvent("ADDED", an_object(name, **kwargs))


def modified(name: str, **kwargs: Any) -> WatchEvent:
    return WatchEvent("MODIFIED", an_object(name, **kwargs))


def deleted(name: str, **kwargs: Any) -> WatchEvent:
    return WatchEvent("DELETED", an_object(name, **kwargs))


def bookmark(version: str) -> WatchEvent:
    return WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": version}})


@dataclass(frozen=True, slots=True)
class Listed:
    """A list answers with these objects, or with an error."""

    objects: tuple[Body, ...] = ()
    version: str = "1"
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """A watch brings these events, lasts, then breaks with `error` or ends cleanly."""

    events: tuple[WatchEvent, ...] = ()
    lasts_s: float = 0.0
    error: Exception | None = None


def listed(*objects: Body, version: str = "1") -> Listed:
    return Listed(objects, version)


def watched(*events: WatchEvent, lasts_s: float = 0.0, error: Exception | None = None) -> Watched:
    return Watched(events, lasts_s, error)


_Turn = TypeVar("_Turn", Listed, Watched)


@dataclass(frozen=True, slots=True)
class Call:
    verb: str
    version: str
    at_s: float


@dataclass
class ScriptedKube(KubeStub):
    """See the module. `calls` is what was asked when, on the loop's clock."""

    script: deque[Listed | Watched]
    calls: list[Call] = field(default_factory=list)
    arguments: list[dict[str, Any]] = field(default_factory=list)
    open_watches: int = 0
    _finished: asyncio.Event = field(default_factory=asyncio.Event)

    async def finished(self) -> None:
        """Return when the caller has come back for more than the script holds."""
        await self._finished.wait()

    @property
    def verbs(self) -> list[str]:
        """What was asked, in short: `list`, `watch 5`, ..."""
        return [f"{call.verb} {call.version}".strip() for call in self.calls]

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        metadata_only: bool = False,
    ) -> Body:
        self._record("list", resource_version, namespace, label_selector, field_selector)
        turn = await self._next(Listed)
        if turn.error:
            raise turn.error
        return {"metadata": {"resourceVersion": turn.version}, "items": list(turn.objects)}

    async def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: float = 300.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        self._record("watch", resource_version, namespace, label_selector, field_selector)
        self.open_watches += 1
        try:
            turn = await self._next(Watched)
            for event in turn.events:
                yield event
            await asyncio.sleep(turn.lasts_s)
            if turn.error:
                raise turn.error
        finally:
            self.open_watches -= 1

    def _record(self, verb: str, version: str, namespace: str | None, *selectors: str) -> None:
        self.calls.append(Call(verb, version, asyncio.get_running_loop().time()))
        self.arguments.append({"namespace": namespace, "selectors": selectors})

    async def _next(self, kind: type[_Turn]) -> _Turn:
        if not self.script:
            self._finished.set()
            await asyncio.Event().wait()
        turn = self.script.popleft()
        assert isinstance(turn, kind), f"the script has {turn} next, asked was {self.verbs[-1]}"
        return turn


def scripted(*turns: Listed | Watched) -> ScriptedKube:
    return ScriptedKube(deque(turns))
