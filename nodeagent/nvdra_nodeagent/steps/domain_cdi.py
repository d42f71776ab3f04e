"""The CDI files of a domain's claims: channels for workloads, everything that a daemon needs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

import msgspec

from nvdra_nodeagent.errors import NodeFault
from nvdra_nodeagent.hardware.errors import HardwareError

if TYPE_CHECKING:
    from collections.abc import Iterator


class ChannelCdiStep(msgspec.Struct, frozen=True, tag_field="kind", tag="channel_cdi"):
    """The claim's file gives containers `count` IMEX channels, beginning with `first`."""

    claim_uid: str
    device: str
    first: int
    count: int

    @property
    def gpu_uuids(self) -> frozenset[str]:
        """None: the file is the claim's own."""
        return frozenset()


class DaemonCdiStep(msgspec.Struct, frozen=True, tag_field="kind", tag="daemon_cdi", kw_only=True):
    """The claim's file makes a container a daemon of the domain: driver, capability, directory."""

    claim_uid: str
    device: str
    domain: str
    clique: str
    name: str
    namespace: str
    boot_id: str

    @property
    def gpu_uuids(self) -> frozenset[str]:
        """None: the file is the claim's own."""
        return frozenset()


DomainCdiStep: TypeAlias = ChannelCdiStep | DaemonCdiStep


class DomainCdi(Protocol):
    """Writes these files. Calls block and may raise `AgentError` and `HardwareError`."""

    def put(self, step: DomainCdiStep) -> None:
        """Write the claim's file, durably and as a whole."""
        ...

    def is_put(self, step: DomainCdiStep) -> bool:
        """Whether the claim's file is what `put` would write now."""
        ...

    def remove(self, claim_uid: str) -> bool: ...


class DomainCdiHandler:
    """Applies and undoes both kinds of step."""

    can_wait: ClassVar[bool] = False  # with the file left, a container could still get the devices
    outlasts_boot: ClassVar[bool] = False

    def __init__(self, files: DomainCdi) -> None:
        self._files = files

    def apply(self, step: DomainCdiStep) -> None:
        with _described(step):
            self._files.put(step)

    def undo(self, step: DomainCdiStep, result: dict[str, str] | None = None) -> None:
        self._files.remove(step.claim_uid)

    def forget(self, claim_uid: str) -> None:
        self._files.remove(claim_uid)

    def holds(self, step: DomainCdiStep, result: dict[str, str] | None = None) -> bool:
        with _described(step):
            return self._files.is_put(step)


@contextmanager
def _described(step: DomainCdiStep) -> Iterator[None]:
    try:
        yield
    except HardwareError as error:
        what = f"cannot describe {step.device} for CDI"
        raise NodeFault("CdiIncomplete", f"{what}: {error}") from error
