"""What the kubelet remembers of claims across its restarts: the `dra_manager_state` file.

A claim is written before the first driver is called for it, and removed after the last one
answered its unprepare. After a restart a claim counts as unprepared; its devices are still known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from nvdra_nodeagent.claims.model import ClaimRef, PreparedDevice
from nvdra_nodeagent.durable import write_durably

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)

_VERSION = 1
# Decoders are built on import: two threads that build one at once crash the process.
msgspec.json.Decoder(ClaimRef)
msgspec.json.Decoder(PreparedDevice)


@dataclass(slots=True)
class ClaimState:
    """One claim on this node: who uses it, and what its drivers returned."""

    ref: ClaimRef
    drivers: tuple[str, ...]
    pods: set[str] = field(default_factory=set)
    devices: list[PreparedDevice] = field(default_factory=list)
    prepared: bool = False


@dataclass(slots=True)
class ClaimStates:
    """All claims by namespace and name; the kubelet holds one claim per name at a time."""

    path: Path
    claims: dict[tuple[str, str], ClaimState] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> ClaimStates:
        """Blocks. A damaged file is put aside: the drivers' own records are what counts."""
        try:
            return cls(path, _decode(path.read_bytes()))
        except FileNotFoundError:
            return cls(path)
        except (ValueError, KeyError, TypeError) as exc:
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            log.error("kubelet claim state is damaged", path=str(aside), cause=str(exc))
            return cls(path)

    def encode(self) -> bytes:
        entries = [
            {
                "ref": msgspec.to_builtins(state.ref),
                "drivers": list(state.drivers),
                "pods": sorted(state.pods),
                "devices": msgspec.to_builtins(state.devices),
            }
            for state in self.claims.values()
        ]
        return json.dumps({"version": _VERSION, "claims": entries}).encode()

    def write(self, content: bytes) -> None:
        """Blocks. `content` comes from `encode()`, called where nobody else changes the claims."""
        write_durably(self.path, content)


def _decode(content: bytes) -> dict[tuple[str, str], ClaimState]:
    document: dict[str, Any] = json.loads(content)
    if document["version"] != _VERSION:
        raise ValueError(f"version {document['version']} is not {_VERSION}")
    states = {}
    for entry in document["claims"]:
        ref = msgspec.convert(entry["ref"], ClaimRef)
        states[(ref.namespace, ref.name)] = ClaimState(
            ref=ref,
            drivers=tuple(entry["drivers"]),
            pods=set(entry["pods"]),
            devices=msgspec.convert(entry["devices"], list[PreparedDevice]),
        )
    return states
