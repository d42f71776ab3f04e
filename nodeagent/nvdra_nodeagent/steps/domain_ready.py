"""A workload waits until the IMEX daemon of its domain is ready on this node."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from nvdra_nodeagent.errors import NotYet

if TYPE_CHECKING:
    from collections.abc import Callable


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
    """Looks; there is nothing to undo."""

    can_wait: ClassVar[bool] = True

    def __init__(self, obstacle: Callable[[str, str], str]) -> None:
        """`obstacle` as `Readiness` has it."""
        self._obstacle = obstacle

    def apply(self, step: DomainReadyStep) -> dict[str, str]:
        """:raises NotYet: with what is missing."""
        obstacle = self._obstacle(step.domain, step.clique)
        if obstacle:
            raise NotYet(
                "DomainNotReady",
                f"ComputeDomain {step.domain} is not ready on this node: {obstacle}",
                hint="look at the domain's conditions, and at its daemon's pod on this node",
            )
        return {"ready": "once"}

    def undo(self, step: DomainReadyStep, result: dict[str, str] | None = None) -> None: ...

    def forget(self, claim_uid: str) -> None: ...

    def holds(self, step: DomainReadyStep, result: dict[str, str] | None = None) -> bool:
        return result is not None
