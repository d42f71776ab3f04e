"""What a plan consists of: single calls of the API, each with the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from nvdra_kube.api import Body, JsonPatch, PatchType, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Make an object. A name that is taken by somebody else is an obstacle, not an error."""

    resource: Resource
    body: Body
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Write a whole object; its resourceVersion guards it."""

    resource: Resource
    body: Body
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Change a part of an object. `tested`: a failed test of the patch means nothing is to do."""

    resource: Resource
    name: str
    namespace: str = ""
    patch: Body | JsonPatch
    patch_type: PatchType = "application/merge-patch+json"
    tested: bool = False
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove this very object; what has its name later is left alone."""

    resource: Resource
    name: str
    namespace: str = ""
    uid: str = ""
    why: str


Action: TypeAlias = Create | Replace | Patch | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Stages in order; the actions of one stage have no order among themselves.

    `waiting_for` says what a teardown still waits for; `finished` that nothing is left of it.
    """

    stages: tuple[tuple[Action, ...], ...] = ()
    waiting_for: str = ""
    finished: bool = False

    @property
    def actions(self) -> tuple[Action, ...]:
        return tuple(action for stage in self.stages for action in stage)
