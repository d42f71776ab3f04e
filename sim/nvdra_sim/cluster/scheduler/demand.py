"""What a claim asks for, read once from its spec and its device classes.

A request is one or more options in order of preference: `exactly` is one option, `firstAvailable`
has one per sub-request. v1 shapes only, as the API server stores them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nvdra_sim.cluster.scheduler.capacity import amount_of
from nvdra_sim.cluster.scheduler.cel import BadExpression, Program, compile_selector
from nvdra_sim.cluster.scheduler.usage import claim_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nvdra_kube.api import Body


class DemandError(Exception):
    """The claim cannot be satisfied by any node: its message says which request and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Selector:
    """One CEL selector. `owner` is for messages: `class gpu.nvidia.com` or `request gpu`."""

    owner: str
    program: Program


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """One way to satisfy a request. `name` is what results carry: `main` or `main/sub`.

    `count` is 0 for all matching devices (`allocationMode: All`).
    """

    name: str
    device_class: Body
    selectors: tuple[Selector, ...]
    count: int
    admin_access: bool
    tolerations: tuple[Body, ...]
    capacity: Mapping[str, int]

    @property
    def class_name(self) -> str:
        return str(self.device_class["metadata"]["name"])

    @property
    def wants_all(self) -> bool:
        return self.count == 0


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    name: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ClaimDemand:
    """A claim to allocate. `key` is `namespace/name`."""

    key: str
    claim: Body
    requests: tuple[Request, ...]

    @property
    def constraints(self) -> Sequence[Body]:
        return self.claim["spec"].get("devices", {}).get("constraints") or []


def read_demand(claim: Body, *, classes: Mapping[str, Body]) -> ClaimDemand:
    """Read a claim.

    Raises DemandError when a class does not exist, a selector does not compile, or a field has a
    value that this version does not know.
    """
    key = claim_key(claim)
    requests = claim["spec"].get("devices", {}).get("requests") or []
    return ClaimDemand(key, claim, tuple(_request(body, key, classes) for body in requests))


def _request(body: Body, claim: str, classes: Mapping[str, Body]) -> Request:
    name = body["name"]
    if exact := body.get("exactly"):
        wanted = [(name, exact)]
    else:
        wanted = [(f"{name}/{sub['name']}", sub) for sub in body.get("firstAvailable") or []]
    options = tuple(_option(full_name, each, claim, classes) for full_name, each in wanted)
    if not options:
        raise DemandError(f"claim {claim}, request {name}: neither exactly nor firstAvailable")
    return Request(name, options)


def _option(name: str, body: Body, claim: str, classes: Mapping[str, Body]) -> Option:
    where = f"claim {claim}, request {name}"
    class_name = body.get("deviceClassName", "")
    device_class = classes.get(class_name)
    if device_class is None:
        raise DemandError(f"{where}: device class {class_name} does not exist")
    of_class = _selectors(device_class.get("spec") or {}, f"class {class_name}", where)
    of_request = _selectors(body, f"request {name}", where)
    return Option(
        name=name,
        device_class=device_class,
        selectors=(*of_class, *of_request),
        count=_count(body, where),
        admin_access=bool(body.get("adminAccess")),
        tolerations=tuple(body.get("tolerations") or ()),
        capacity=_capacity(body, where),
    )


def _selectors(body: Body, owner: str, where: str) -> Iterator[Selector]:
    for index, selector in enumerate(body.get("selectors") or []):
        expression = (selector.get("cel") or {}).get("expression")
        if expression is None:
            raise DemandError(f"{where}: selector {index} of {owner} is not a CEL selector")
        try:
            yield Selector(owner, compile_selector(expression))
        except BadExpression as error:
            raise DemandError(f"{where}: selector {index} of {owner}: {error}") from error


def _count(body: Body, where: str) -> int:
    mode = body.get("allocationMode") or "ExactCount"
    if mode == "All":
        return 0
    if mode != "ExactCount":
        raise DemandError(f"{where}: unknown allocationMode {mode}; use ExactCount or All")
    return int(body.get("count") or 1)


def _capacity(body: Body, where: str) -> dict[str, int]:
    requests = (body.get("capacity") or {}).get("requests") or {}
    try:
        return {name: amount_of(text) for name, text in requests.items()}
    except ValueError as error:
        raise DemandError(f"{where}: capacity request: {error}") from error
