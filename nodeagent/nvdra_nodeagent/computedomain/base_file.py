"""The CDI file of an earlier driver that all its daemons share: kept as long as one may need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from nvdra_api.names import CDI_COMPUTE_DOMAIN_VENDOR, CDI_DEVICE_CLASS
from nvdra_nodeagent.checkpoint.migration import NAME as CHECKPOINT
from nvdra_nodeagent.durable import remove_with_temporaries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nvdra_nodeagent.claims.record import Record

log = structlog.get_logger(__name__)

_PREFIX: Final = f"{CDI_COMPUTE_DOMAIN_VENDOR}/{CDI_DEVICE_CLASS}="
_NAME: Final = f"{CDI_COMPUTE_DOMAIN_VENDOR}-{CDI_DEVICE_CLASS}_base.yaml"


class BaseFile:
    """Calls block."""

    def __init__(self, cdi_root: Path, *, state_dir: Path, dry_run: bool = False) -> None:
        """`state_dir` is where that driver's checkpoint is, until it was taken over."""
        self.path = cdi_root / _NAME
        self._checkpoint = state_dir / CHECKPOINT
        self._dry_run = dry_run
        self._idle = False

    def sweep(self, records: Sequence[Record], *, fences: int) -> bool:
        """Remove the file if no claim names its devices, now and at the last look; whether it was.

        What a fence stands for may name them. :raises Retryable: the disk refuses.
        """
        idle = not (fences or _is_named(records) or self._checkpoint.exists())
        was_idle, self._idle = self._idle, idle
        if not (idle and was_idle and self.path.exists()):
            return False
        if self._dry_run:
            log.info("sweep would remove", files=[str(self.path)])
            return False
        return remove_with_temporaries(self.path)


def _is_named(records: Sequence[Record]) -> bool:
    return any(
        cdi_id.startswith(_PREFIX)
        for record in records
        for held in record.devices
        for cdi_id in held.cdi_ids
    )
