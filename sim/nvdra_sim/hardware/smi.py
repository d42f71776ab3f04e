"""The nvidia-smi stand-in: a shell script with the tables of one machine in front.

The tables hold every GPU and every MIG device that the machine could ever have; which of them are
there, the script sees from device nodes alone.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from nvdra_sim.hardware import identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nvdra_sim.hardware.profile import GpuSlot, MigProfile, Profile

_SCRIPTS = Path(__file__).with_name("scripts")


def nvidia_smi(profile: Profile, *, node: str) -> str:
    """The script's text."""
    major, minor = profile.compute_capability
    constants = {
        "NAME": profile.product,
        "DRIVER": profile.driver_version,
        "CUDA": profile.cuda_text,
        "COMPUTE_CAP": f"{major}.{minor}",
        "MEMORY": profile.memory_mib,
        "POWER": profile.power_limit_w,
        "MIG_CAPABLE": int(profile.mig is not None),
        "ORDER": " ".join(str(gpu.minor) for gpu in profile.gpus),
    }
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in constants.items()]
    gpus = list(enumerate(profile.gpus))
    lines += ["gpu_table() {", "    case $1 in"]
    lines += [
        f"    {gpu.minor}) uuid={identity.gpu_uuid(node, index)} bus={gpu.bus_id} ;;"
        for index, gpu in gpus
    ]
    lines += ["    esac", "}", "mig_table() {", "    rows=", "    case $1 in"]
    for index, gpu in gpus:
        if rows := list(_mig_rows(profile, node, index, gpu)):
            lines += [f"    {gpu.minor}) rows='", *rows, "    ' ;;"]
    lines += ["    esac", "}", ""]
    body = (_SCRIPTS / "nvidia-smi.sh").read_text(encoding="utf-8")
    return "#!/bin/sh\n" + "\n".join(lines) + body


def cdi_hook() -> str:
    """The nvidia-cdi-hook stand-in; it is the same for every machine."""
    return (_SCRIPTS / "nvidia-cdi-hook.sh").read_text(encoding="utf-8")


def _mig_rows(profile: Profile, node: str, index: int, gpu: GpuSlot) -> Iterator[str]:
    """One word per possible MIG device, in the order of GPU instance ids."""
    table = profile.mig
    if table is None:
        return
    devices = sorted(
        (identity.gi_id(table, start=start, size=each.size), identity.ci_id(table, each), each)
        for each in table.profiles
        for start in each.starts
    )
    for gi, ci, mig in devices:
        caps = (identity.gi_cap(gpu.minor, gi), identity.ci_cap(gpu.minor, gi, ci), gi, ci)
        uuid = identity.mig_uuid(node, index, gi, ci)
        yield ",".join(str(word) for word in (*caps, mig.name, uuid, *_figures(mig)))


def _figures(mig: MigProfile) -> tuple[int, ...]:
    return (
        mig.memory_mib,
        mig.multiprocessors,
        mig.copy_engines,
        mig.encoders,
        mig.decoders,
        mig.ofa_engines,
        mig.jpeg_engines,
    )
