"""Opaque configs as users write them."""

from __future__ import annotations

import json
from typing import Any

from nvdra_api.gates import FeatureGates
from nvdra_api.names import API_VERSION

SHARING_ON = FeatureGates.parse("TimeSlicingSettings=true,MPSSupport=true")


def a_config(kind: str = "GpuConfig", **fields: Any) -> dict[str, Any]:
    """Opaque parameters of a kind; fields under their JSON names."""
    return {"apiVersion": API_VERSION, "kind": kind, **fields}


def a_config_text(kind: str = "GpuConfig", **fields: Any) -> bytes:
    """The same as JSON text."""
    return json.dumps(a_config(kind, **fields)).encode()


def time_slicing(**config: Any) -> dict[str, Any]:
    """A `sharing` with time slices, e.g. `time_slicing(interval="Long")`."""
    return {"strategy": "TimeSlicing", "timeSlicingConfig": config}


def mps(**config: Any) -> dict[str, Any]:
    """A `sharing` with MPS, e.g. `mps(defaultActiveThreadPercentage=50)`."""
    return {"strategy": "MPS", "mpsConfig": config}
