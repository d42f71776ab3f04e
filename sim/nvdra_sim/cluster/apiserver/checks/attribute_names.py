"""Names of attributes and capacities: a C identifier, optionally in a domain."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvdra_sim.cluster.apiserver.checks.findings import Findings

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_IDENTIFIER = 32
_MAX_DOMAIN = 63


def check_attribute_name(name: str, path: str, findings: Findings) -> None:
    if not name:
        findings.required(path, "name required")
        return
    domain, slash, identifier = name.rpartition("/")
    if slash:
        findings.subdomain(path, domain, limit=_MAX_DOMAIN)
    if not identifier:
        findings.required(path, "name part required")
    elif findings.not_longer(path, identifier, _MAX_IDENTIFIER) and not _IDENTIFIER.fullmatch(
        identifier
    ):
        why = (
            "a valid C identifier must start with alphabetic character or '_', followed by a"
            " string of alphanumeric characters or '_'"
        )
        findings.invalid(path, identifier, why)
