"""CDI files as claims use them: inventory devices in, one durable file out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from nvdra_nodeagent.cdi.builder import ClaimDevice
from nvdra_nodeagent.cdi.names import cdi_device_id, cdi_device_name
from nvdra_nodeagent.errors import Retryable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nvdra_nodeagent.cdi.builder import CdiBuilder
    from nvdra_nodeagent.cdi.document import CdiSpec
    from nvdra_nodeagent.cdi.store import CdiStore
    from nvdra_nodeagent.inventory.model import Device

log = structlog.get_logger(__name__)


class StoredFiles:
    """The builder and the store as one, as far as all drivers' files of claims are alike. Calls
    block and may raise `AgentError`."""

    def __init__(self, builder: CdiBuilder, store: CdiStore) -> None:
        self._builder = builder
        self._store = store

    def basis(self) -> str:
        """Another one when files that are written now would differ from those written before."""
        return self._builder.basis()

    def remove(self, claim_uid: str) -> bool:
        """Remove the claim's file; False when there was none."""
        return self._store.remove(claim_uid)

    def claim_uids(self) -> list[str]:
        """The claims that have a file."""
        return self._store.claim_uids()

    def device_names(self, claim_uid: str) -> list[str]:
        """The devices in a claim's file by their inventory names; none if it cannot be read."""
        try:
            return self._store.device_names(claim_uid)
        except Retryable as error:
            log.warning("CDI file not readable", claim=claim_uid, error=str(error))
            return []

    def find_temporaries(self, *, older_than_s: float) -> list[Path]:
        """What writers left when they died."""
        return self._store.find_temporaries(older_than_s=older_than_s)


class ClaimFiles(StoredFiles):
    """The files of claims for GPUs."""

    def device_id(self, claim_uid: str, device_name: str) -> str:
        """The qualified id of a claim's device."""
        return cdi_device_id(claim_uid, device_name)

    def write(self, claim_uid: str, devices: Sequence[Device]) -> None:
        """One build and one durable write."""
        self._store.write(claim_uid, self._build(claim_uid, devices))

    def is_current(self, claim_uid: str, devices: Sequence[Device]) -> bool:
        """Whether the file is what `write` would write now: drivers are replaced under claims."""
        return self._store.holds(claim_uid, self._build(claim_uid, devices))

    def _build(self, claim_uid: str, devices: Sequence[Device]) -> CdiSpec:
        named = [
            ClaimDevice(device=device, cdi_name=cdi_device_name(claim_uid, device.name))
            for device in devices
        ]
        return self._builder.build(claim_uid, named)
