"""Whether the node's driver can run an IMEX daemon that finds its peers by name."""

from __future__ import annotations

import re
from typing import Final

from nvdra_nodeagent.errors import NodeFault

LEAST_FOR_NAMES: Final = "570.158.01"
"""The first driver whose `nvidia-imex` takes host names in its list of nodes."""

_PARTS: Final = re.compile(r"\d+(?:\.\d+)+")


def check_names_possible(version: str) -> None:
    """A version that cannot be read is taken for a new one.

    :raises NodeFault: `DriverTooOld`.
    """
    if _PARTS.fullmatch(version) and _numbers(version) < _numbers(LEAST_FOR_NAMES):
        raise NodeFault(
            "DriverTooOld",
            f"NVIDIA driver {version} cannot find the nodes of a ComputeDomain by name: that takes "
            f"{LEAST_FOR_NAMES} or later",
            hint="update the driver, or set featureGates.IMEXDaemonsWithDNSNames=false",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
