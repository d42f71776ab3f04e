"""Simulated hardware for tests: made in a moment, and seen as containers see it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from nvdra_sim.hardware import SimulatedHardware

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nvdra_nodeagent.hardware.ports import NvmlDevice


def simulated(
    directory: Path, profile: str = "h100", *, node: str = "node-a", mig: Iterable[str] = ()
) -> SimulatedHardware:
    """A machine below `directory`; GPU 0 in MIG mode with these devices if any are named."""
    hardware = SimulatedHardware.open(profile, directory / "hardware", node=node)
    wanted = list(mig)
    if wanted:
        hardware.set_mig_mode(0, enabled=True)
        hardware.reset(0)
    for name in wanted:
        hardware.create_mig(0, name)
    return hardware


def first_gpu(hardware: SimulatedHardware) -> NvmlDevice:
    hardware.machine.nvml.init()
    return hardware.machine.nvml.device(0)


def nvidia_smi(
    hardware: SimulatedHardware, *arguments: str, dev: Path, shell: str = "sh"
) -> subprocess.CompletedProcess[str]:
    """Run the stand-in where /dev is `dev` and nothing else."""
    script = hardware.directory / "driver-root/usr/bin/nvidia-smi"
    enter = 'mount --bind "$1" /dev && shift && exec "$@"'
    namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
    return subprocess.run(
        [*namespaces, "sh", "-c", enter, "sh", str(dev), *shell.split(), str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
        timeout=30,
    )
