"""What the server does to objects of a resource beyond storing them: defaults, drops, checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from nvdra_kube.api import Body
    from nvdra_sim.cluster.apiserver.gates import ServerProfile
    from nvdra_sim.cluster.apiserver.refusals import Problem


def _nothing(*_: object) -> None:
    return None


def _no_problems(*_: object) -> list[Problem]:
    return []


@dataclass(frozen=True, slots=True)
class Rules:
    """Functions over objects in the storage version.

    `default` and `drop` change the new object in place (`default` and `start` are told the time);
    the checks return what is wrong with it.
    `status` checks writes through the status endpoint.
    """

    default: Callable[[Body, str], None] = field(default=_nothing)
    drop: Callable[[Body, Body | None, ServerProfile], None] = field(default=_nothing)
    start: Callable[[Body, str], None] = field(default=_nothing)
    """Only on create, after the checks: e.g. the first status."""
    create: Callable[[Body, ServerProfile], list[Problem]] = field(default=_no_problems)
    update: Callable[[Body, Body, ServerProfile], list[Problem]] = field(default=_no_problems)
    settle: Callable[[Body, Body], None] = field(default=_nothing)
    """On each update, before the checks: fields that the server derives from the change."""
    status: Callable[[Body, Body, ServerProfile], list[Problem]] = field(default=_no_problems)
