"""Trouble on demand: rules that make calls of the API slow, refused, lost or silently trimmed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from nvdra_sim.cluster.apiserver.refusals import for_status

if TYPE_CHECKING:
    from nvdra_kube.api import Body

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule. Empty `verb`, `resource` (plural), `namespace`, `name` match everything.

    `status` answers with this code (with `retry_after_s` where given), `latency_s` delays, `hang`
    never answers, `drop_fields` removes dotted paths from written objects (`spec.devices.taints`
    reaches into lists). With `after` the write is committed before the trouble starts, as when
    the answer is lost on the way. `count` limits how often the rule strikes.
    """

    verb: str = ""
    resource: str = ""
    subresource: str | None = None
    namespace: str = ""
    name: str = ""
    status: int = 0
    message: str = "injected fault"
    retry_after_s: float | None = None
    latency_s: float = 0.0
    hang: bool = False
    drop_fields: tuple[str, ...] = ()
    after: bool = False
    count: int | None = None
    probability: float = 1.0
    struck: int = 0

    def matches(self, verb: str, resource: str, subresource: str, key: tuple[str, str]) -> bool:
        return (
            self.count != 0
            and self.verb in ("", verb)
            and self.resource in ("", resource)
            and self.subresource in (None, subresource)
            and self.namespace in ("", key[0])
            and self.name in ("", key[1])
        )


class Faults:
    """The rules in force, tried in order of their addition; all that match strike."""

    def __init__(self, *, seed: int | None = None) -> None:
        self._rules: list[Fault] = []
        self._rng = random.Random(seed)

    def add(self, fault: Fault) -> Fault:
        self._rules.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        self._rules.remove(fault)

    def clear(self) -> None:
        self._rules.clear()

    def strike(
        self,
        verb: str,
        resource: str,
        *,
        subresource: str = "",
        namespace: str = "",
        name: str = "",
    ) -> list[Fault]:
        """The rules that hit this call; each counts as used."""
        if not self._rules:
            return []
        hits = []
        for fault in self._rules:
            if not fault.matches(verb, resource, subresource, (namespace, name)):
                continue
            if fault.probability < 1.0 and self._rng.random() >= fault.probability:
                continue
            fault.struck += 1
            if fault.count is not None:
                fault.count -= 1
            hits.append(fault)
        return hits


async def suffer(faults: list[Fault], *, after: bool) -> None:
    """Live through the faults of one call that come before, or after, the store was asked."""
    for fault in faults:
        if fault.after is not after:
            continue
        if fault.latency_s:
            await asyncio.sleep(fault.latency_s)
        if fault.hang:
            await asyncio.get_running_loop().create_future()
        if fault.status:
            _log.debug("fault injected", status=fault.status, verb=fault.verb)
            raise for_status(fault.status, fault.message, retry_after_s=fault.retry_after_s)


def drop_fields(faults: list[Fault], body: Body) -> None:
    """Remove what the faults want removed, as a server without the field's gate does."""
    for fault in faults:
        for path in fault.drop_fields:
            _drop(body, path.split("."))


def _drop(node: object, path: list[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _drop(item, path)
    elif isinstance(node, dict):
        if len(path) == 1:
            node.pop(path[0], None)
        elif path[0] in node:
            _drop(node[path[0]], path[1:])
