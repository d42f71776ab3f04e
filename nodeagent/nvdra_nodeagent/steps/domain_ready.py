"""A workload waits until the IMEX daemon of its domain is ready on this node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

import msgspec

from nvdra_nodeagent.errors import AgentError, NotYet

if TYPE_CHECKING:
    from collections.abc import Callable

WaitOutcome: TypeAlias = Literal["ready", "given_up"]
"""The daemon was ready, or the claim was unprepared before it was."""


class Readiness(Protocol):
    """Whether the daemons of this node are ready. Blocks and may raise `AgentError`."""

    def obstacle(self, domain: str, clique: str) -> str:
        """Why the node cannot use the domain yet; "" when it can."""
        ...


class DomainReadyStep(msgspec.Struct, frozen=True, tag_field="kind", tag="domain_ready"):
    """The domain's daemon was ready on this node once; later it may be down, and pods stay."""

    claim_uid: str
    domain: str
    clique: str

    @property
    def gpu_uuids(self) -> frozenset[str]:
        """None: nothing is changed."""
        return frozenset()


class DomainReadyHandler:
    """Looks, and measures for how long; there is nothing to undo."""

    can_wait: ClassVar[bool] = True
    outlasts_boot: ClassVar[bool] = False

    def __init__(
        self,
        obstacle: Callable[[str, str], str],
        *,
        on_end: Callable[[WaitOutcome, float], None] = lambda outcome, wait_s: None,
    ) -> None:
        """`obstacle` as `Readiness` has it. `on_end` is told how long a claim has waited since this
        agent first looked, in any thread."""
        self._obstacle = obstacle
        self._on_end = on_end
        self._since_s: dict[str, float] = {}

    def apply(self, step: DomainReadyStep) -> dict[str, str]:
        """:raises NotYet: with what is missing.
        :raises AgentError: as `obstacle` does.
        """
        self._since_s.setdefault(step.claim_uid, time.monotonic())
        try:
            obstacle = self._obstacle(step.domain, step.clique)
        except AgentError:  # not waiting: something is wrong
            self._since_s.pop(step.claim_uid, None)
            raise
        if obstacle:
            raise NotYet(
                "DomainNotReady",
                f"ComputeDomain {step.domain} is not ready on this node: {obstacle}",
                hint="look at the domain's conditions, and at its daemon's pod on this node",
            )
        self._end(step.claim_uid, "ready")
        return {"ready": "once"}

    def undo(self, step: DomainReadyStep, result: dict[str, str] | None = None) -> None:
        self._end(step.claim_uid, "given_up")

    def forget(self, claim_uid: str) -> None:
        self._end(claim_uid, "given_up")

    def holds(self, step: DomainReadyStep, result: dict[str, str] | None = None) -> bool:
        return result is not None

    def _end(self, claim_uid: str, outcome: WaitOutcome) -> None:
        if (since_s := self._since_s.pop(claim_uid, None)) is not None:
            self._on_end(outcome, time.monotonic() - since_s)
