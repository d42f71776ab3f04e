"""Device numbers for a simulated machine on a node whose kernel has drivers of its own.

Containers get devices by their numbers: one that belongs to a real driver of the node would hand
out that driver's device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_sim.hardware.errors import SimulationError
from nvdra_sim.hardware.profile import Majors

if TYPE_CHECKING:
    from collections.abc import Mapping

# "Local/experimental use" in the kernel's list of devices: never given to a driver that asks for
# any number, as those of NVIDIA but for the first do, and as any driver loaded later may.
LOCAL_MAJORS: Final = (*range(120, 128), *range(60, 64))
_NVIDIA: Final = Majors().nvidia
"""Assigned to NVIDIA for good."""


def free_majors(drivers: Mapping[int, str]) -> Majors:
    """Numbers that none of the kernel's `drivers` has, the same ones for the same drivers.

    :raises SimulationError: too few are left.
    """
    free = iter([major for major in LOCAL_MAJORS if major not in drivers])
    try:
        return Majors(
            nvidia=next(free) if _NVIDIA in drivers else _NVIDIA,
            drm=next(free),
            nvidia_caps_imex_channels=next(free),
            nvidia_caps=next(free),
            nvidia_uvm=next(free),
        )
    except StopIteration as error:
        taken = ", ".join(f"{each} {drivers[each]}" for each in LOCAL_MAJORS if each in drivers)
        raise SimulationError(
            "too few device numbers for local use are free on this node for simulated devices "
            f"(/proc/devices has {taken}); keep the simulation off this node"
        ) from error
