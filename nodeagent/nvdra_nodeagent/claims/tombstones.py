"""What is still to be undone of claims that the kubelet has been told are gone.

`tombstones/<claim UID>.json` is durable before the claim's record goes. Its GPUs are granted to
nobody until it is done.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from nvdra_nodeagent.cdi.names import is_claim_uid
from nvdra_nodeagent.claims.model import ClaimRef  # noqa: TC001 - msgspec evaluates it
from nvdra_nodeagent.claims.record import Fence, StepEntry
from nvdra_nodeagent.claims.seal import Damaged
from nvdra_nodeagent.claims.sealed import SealedFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Tombstone(msgspec.Struct, frozen=True):
    """`steps` in the order in which they were applied; `cause` is why they could not be undone."""

    claim: ClaimRef
    steps: tuple[StepEntry, ...]
    cause: str

    def gpu_uuids(self) -> frozenset[str]:
        """The GPUs that its steps may touch."""
        return frozenset[str]().union(*(entry.step.gpu_uuids for entry in self.steps))

    def fence(self) -> Fence:
        return Fence(
            uid=self.claim.uid,
            reason=f"its settings are not undone yet: {self.cause}",
            gpu_uuids=tuple(sorted(self.gpu_uuids())),
            claim=self.claim,
        )


class Tombstones:
    """The tombstones of this node. Calls block; storage errors are `Retryable`."""

    def __init__(
        self,
        state_dir: Path,
        *,
        on_quarantine: Callable[[str, str], None] = lambda uid, reason: None,
    ) -> None:
        """`on_quarantine` is told UID and reason of a damaged one, in the calling thread."""
        self._files = SealedFiles(
            state_dir / "tombstones", quarantine=state_dir / "quarantine", type_=Tombstone
        )
        self._on_quarantine = on_quarantine

    @property
    def directory(self) -> Path:
        return self._files.directory

    def uids(self) -> list[str]:
        return [name for name in self._files.names() if is_claim_uid(name)]

    def get(self, uid: str) -> Tombstone | None:
        """With the claim locked. A damaged one is set aside: what it stood for is still told by
        the effects that its claim holds."""
        try:
            return self._files.read(uid)
        except Damaged as damage:
            if not damage.newer:
                self._files.set_aside(uid, damage.reason)
                self._on_quarantine(uid, damage.reason)
            return None

    def write(self, tombstone: Tombstone) -> None:
        self._files.write(tombstone.claim.uid, tombstone)

    def remove(self, uid: str) -> None:
        self._files.remove(uid)

    def all(self) -> tuple[Tombstone, ...]:
        """All that can be read; the others still show in the effects."""
        found = []
        for uid in self.uids():
            with contextlib.suppress(Damaged):
                if tombstone := self._files.read(uid):
                    found.append(tombstone)
        return tuple(found)

    def fences(self) -> tuple[Fence, ...]:
        return tuple(tombstone.fence() for tombstone in self.all())
