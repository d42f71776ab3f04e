"""The directory that this node's agent and the IMEX daemon of a domain share."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, TypeAlias

import msgspec

MembersIn: TypeAlias = Literal["clique", "status"]
"""Where the controller writes the members: a ComputeDomainClique, or the domain's status."""


class DomainDirStep(msgspec.Struct, frozen=True, tag_field="kind", tag="domain_dir", kw_only=True):
    """The directory of `domain` is the daemon's of this claim, with these settings.

    `device` is the daemon device; `name` and `namespace` are the ComputeDomain's, `home` is the
    namespace of daemon and cliques. An empty `protocol` marks the daemon of an earlier driver,
    which reads no settings and tells no readiness here. `mode` is dns or ip.
    """

    claim_uid: str
    device: str
    domain: str
    clique: str
    name: str
    namespace: str
    home: str
    max_nodes: int
    num_nodes: int = 0
    mode: str = "dns"
    suffix: str = ""
    protocol: str = ""
    members: MembersIn = "clique"

    @property
    def gpu_uuids(self) -> frozenset[str]:
        """What to lock and to keep from others: the daemon device."""
        return frozenset((self.device,))


class DomainDirs(Protocol):
    """The shared directories. Calls block and may raise `AgentError`."""

    def occupy(self, step: DomainDirStep) -> None:
        """Make the directory, remove what an earlier daemon left in it, write the settings."""
        ...

    def vacate(self, step: DomainDirStep) -> None:
        """Take back what was written for this claim; success where it is another one's, or gone."""
        ...

    def evict(self, claim_uid: str) -> None:
        """As `vacate`, for a claim of which nothing else is known."""
        ...

    def is_occupied(self, step: DomainDirStep) -> bool:
        """Whether the settings are those of the step."""
        ...


class DomainDirHandler:
    """Applies and undoes `DomainDirStep`."""

    can_wait: ClassVar[bool] = True
    outlasts_boot: ClassVar[bool] = False

    def __init__(self, dirs: DomainDirs) -> None:
        self._dirs = dirs

    def apply(self, step: DomainDirStep) -> None:
        self._dirs.occupy(step)

    def undo(self, step: DomainDirStep, result: dict[str, str] | None = None) -> None:
        self._dirs.vacate(step)

    def forget(self, claim_uid: str) -> None:
        self._dirs.evict(claim_uid)

    def holds(self, step: DomainDirStep, result: dict[str, str] | None = None) -> bool:
        return self._dirs.is_occupied(step)
