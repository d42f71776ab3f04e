"""The node joins a ComputeDomain: a label by which the domain's daemon comes to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

_TRUST_S: Final = 30.0
"""How long a claim that waits does not ask again whether the node still bears the label."""


class NodeMarks(Protocol):
    """What is written on this node's object in the API. Calls block and may raise `AgentError`."""

    def put(self, domain: str, clique: str) -> None:
        """Make the node one of the domain. `Retryable` while it is one of another domain."""
        ...

    def is_put(self, domain: str, clique: str) -> bool:
        """Whether the node says so."""
        ...

    def remove(self, domain: str) -> None:
        """Take the node out of the domain; success where it is not in it, or is gone."""
        ...

    def remove_unless(self, domains: set[str]) -> None:
        """Take the node out of its domain, if that is none of these."""
        ...


class NodeLabelStep(msgspec.Struct, frozen=True, tag_field="kind", tag="node_label"):
    """The node is in `domain` and says which NVLink clique it is in; `device` is the channel."""

    claim_uid: str
    device: str
    domain: str
    clique: str

    @property
    def gpu_uuids(self) -> frozenset[str]:
        """What to lock and to keep from others: the channel."""
        return frozenset((self.device,))


class NodeLabelHandler:
    """Applies and undoes `NodeLabelStep`."""

    can_wait: ClassVar[bool] = True
    outlasts_boot: ClassVar[bool] = True  # without the label, the daemon would go and come back

    def __init__(
        self,
        marks: NodeMarks,
        *,
        domains_of_others: Callable[[str], set[str]],
        is_doubtful: Callable[[str], bool] = lambda domain: False,
        trust_s: float = _TRUST_S,
    ) -> None:
        """`domains_of_others` answers for the UID of a claim which domains the claims of this node
        but that one keep it in; `is_doubtful` whether the label of a domain may be gone."""
        self._marks = marks
        self._domains_of_others = domains_of_others
        self._is_doubtful = is_doubtful
        self._trust_s = trust_s
        self._seen_s: dict[NodeLabelStep, float] = {}

    def apply(self, step: NodeLabelStep) -> dict[str, str]:
        """:raises Retryable: the node is in another domain, or the API gave no usable answer."""
        self._marks.put(step.domain, step.clique)
        self._seen_s[step] = time.monotonic()
        return {"domain": step.domain}

    def undo(self, step: NodeLabelStep, result: dict[str, str] | None = None) -> None:
        self._seen_s.pop(step, None)
        if step.domain not in self._domains_of_others(step.claim_uid):
            self._marks.remove(step.domain)

    def forget(self, claim_uid: str) -> None:
        """Whatever domain the node is in for no other claim was this one's."""
        self._marks.remove_unless(self._domains_of_others(claim_uid))

    def holds(self, step: NodeLabelStep, result: dict[str, str] | None = None) -> bool:
        """The API is asked now and then: a claim that waits looks here all the time."""
        if result is None:
            return False
        asked_s = self._seen_s.get(step)
        fresh = asked_s is not None and time.monotonic() - asked_s < self._trust_s
        if fresh and not self._is_doubtful(step.domain):
            return True
        self._seen_s.pop(step, None)  # while there is no answer, the last one counts no more
        if not self._marks.is_put(step.domain, step.clique):
            return False
        self._seen_s[step] = time.monotonic()
        return True
