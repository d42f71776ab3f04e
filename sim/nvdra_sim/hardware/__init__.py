"""Simulated hardware behind the node agent's ports, driven by a profile and a state directory."""

from __future__ import annotations

from nvdra_sim.hardware.errors import (
    BadLayout,
    BadProfile,
    SimulationError,
    UnknownProfile,
    UnusableStateDir,
)
from nvdra_sim.hardware.machine import SimulatedHardware, simulated_machine
from nvdra_sim.hardware.profile import profile_names
from nvdra_sim.hardware.summary import ProfileSummary, describe

__all__ = [
    "BadLayout",
    "BadProfile",
    "ProfileSummary",
    "SimulatedHardware",
    "SimulationError",
    "UnknownProfile",
    "UnusableStateDir",
    "describe",
    "profile_names",
    "simulated_machine",
]
