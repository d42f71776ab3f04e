"""Every reason that the driver gives for something: one entry each, for pages and programs.

A reason is what stands in brackets at the end of an error, and what Events, conditions of devices,
metrics and logs carry. Errors are raised by name where they happen; a test compares both sides.
Entries stand in the module of what they are about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_api.reasons import (
    api_server,
    compute_domains,
    devices,
    installation,
    program,
    requests,
    state,
)
from nvdra_api.reasons.model import Actor, Kind, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CATALOGUE", "REASONS", "Actor", "Kind", "Reason"]

_AREAS: Final = (requests, devices, compute_domains, api_server, state, program, installation)

CATALOGUE: Final = tuple(
    reason for kind in Kind for area in _AREAS for reason in area.REASONS if reason.kind is kind
)
"""Kind by kind, as the page shows them."""

REASONS: Final[Mapping[str, Reason]] = {reason.name: reason for reason in CATALOGUE}
"""Every reason by its name."""
