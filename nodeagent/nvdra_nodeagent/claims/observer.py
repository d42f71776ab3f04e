"""What the claims tell whoever counts: metrics without importing a metrics library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Operation: TypeAlias = Literal["prepare", "unprepare"]


class ClaimObserver(Protocol):
    """Called in the event loop, never from a thread. Must return at once and not raise."""

    def in_flight(self, operation: Operation, change: int) -> None:
        """A claim is begun (+1) or done (-1), whatever its outcome."""
        ...

    def finished(self, operation: Operation, *, duration_s: float) -> None: ...

    def failed(self, operation: Operation, *, reason: str, duration_s: float) -> None: ...

    def lock_waited(self, operation: Operation, *, wait_s: float) -> None:
        """How long a claim waited for its own lock and those of its GPUs."""
        ...

    def prepared_devices(self, counts: Mapping[str, int]) -> None:
        """Devices that claims hold now, by type; absent types are 0."""
        ...

    def quarantined(self, claim_uid: str, reason: str) -> None:
        """A record could not be used and was moved aside."""
        ...

    def swept(self, kind: str) -> None:
        """Something left over was removed: `record`, `cdi_file` or `temporary`."""
        ...


class SilentObserver(ClaimObserver):
    """Counts nothing."""

    def in_flight(self, operation: Operation, change: int) -> None: ...
    def finished(self, operation: Operation, *, duration_s: float) -> None: ...
    def failed(self, operation: Operation, *, reason: str, duration_s: float) -> None: ...
    def lock_waited(self, operation: Operation, *, wait_s: float) -> None: ...
    def prepared_devices(self, counts: Mapping[str, int]) -> None: ...
    def quarantined(self, claim_uid: str, reason: str) -> None: ...
    def swept(self, kind: str) -> None: ...
