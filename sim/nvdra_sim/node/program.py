"""`nvdra-simulate-node`: furnishes the node it runs on, and ends.

Configured by environment variables, all set by the chart: NODE_NAME, SIMULATION_DIRECTORY,
SIMULATION_DEV_ROOT, SIMULATION_PROFILE, SIMULATION_PROFILE_LABEL, SIMULATION_MIG_LAYOUTS (a file),
SIMULATION_MIG_LAYOUT, SIMULATION_MIG_LAYOUT_LABEL, LOG_VERBOSITY.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from nvdra_kube.errors import ApiError, ConfigurationError
from nvdra_kube.logs import configure
from nvdra_kube.resources import NODES
from nvdra_kube.session import KubeSession
from nvdra_nodeagent.errors import AgentError
from nvdra_sim.hardware.errors import SimulationError
from nvdra_sim.node.device_files import DeviceFiles
from nvdra_sim.node.furnishing import furnish, furnished_before
from nvdra_sim.node.wish import LabelNames, wish_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_kube.api import KubeApi
    from nvdra_sim.hardware.machine import SimulatedHardware
    from nvdra_sim.hardware.profile import Majors

log = structlog.get_logger(__name__)

_HOOK_IN_IMAGE = Path("/usr/bin/nvidia-cdi-hook")


@dataclass(frozen=True, slots=True)
class Settings:
    """The program's environment, read."""

    node: str
    directory: Path
    dev_root: Path | None
    labels: LabelNames
    profile: str
    layouts: Path | None
    layout: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """:raises SimulationError: a variable is missing."""
        for name in ("NODE_NAME", "SIMULATION_DIRECTORY"):
            if not environ.get(name):
                raise SimulationError(f"environment variable {name} is not set")
        return cls(
            node=environ["NODE_NAME"],
            directory=Path(environ["SIMULATION_DIRECTORY"]),
            dev_root=_path(environ, "SIMULATION_DEV_ROOT"),
            labels=LabelNames(
                profile=environ.get("SIMULATION_PROFILE_LABEL", ""),
                mig_layout=environ.get("SIMULATION_MIG_LAYOUT_LABEL", ""),
            ),
            profile=environ.get("SIMULATION_PROFILE", ""),
            layouts=_path(environ, "SIMULATION_MIG_LAYOUTS"),
            layout=environ.get("SIMULATION_MIG_LAYOUT", ""),
        )


def main() -> None:
    """Entry point. Exit status 0 when the node is furnished, 1 when it cannot be."""
    configure(verbosity=int(os.environ.get("LOG_VERBOSITY") or "4"))
    try:
        settings = Settings.read(os.environ)
        asyncio.run(_run(settings))
    except (AgentError, ApiError, ConfigurationError, OSError) as exc:
        log.error("cannot simulate hardware on this node", cause=str(exc))
        sys.exit(1)


async def _run(settings: Settings) -> None:
    devices = DeviceFiles(settings.dev_root, procfs=Path("/proc")) if settings.dev_root else None
    majors = devices.majors() if devices else None
    session = KubeSession.in_cluster(user_agent=f"nvdra-simulate-node/{version('nvdra')}")
    async with session as api:
        hardware = await furnished_node(api, settings, hook=_HOOK_IN_IMAGE, majors=majors)
    made = devices.make(hardware) if devices else 0
    log.info(
        "this node has simulated hardware",
        product=hardware.profile.product,
        gpus=len(hardware.profile.gpus),
        mig=sum(len(gpu.instances) for gpu in hardware.state().gpus),
        device_nodes_changed=made,
    )


async def furnished_node(
    api: KubeApi, settings: Settings, *, hook: Path | None = None, majors: Majors | None = None
) -> SimulatedHardware:
    """The node's hardware as its labels ask for; while the API is away, as it was before.

    :raises ApiError: the node cannot be read and nothing was here before.
    :raises SimulationError: what is asked for cannot be made.
    """
    try:
        node = await api.get(NODES, settings.node)
    except ApiError as exc:
        before = furnished_before(settings.directory)
        if before is None:
            raise
        log.warning("cannot read the node's labels; keeping the hardware", cause=str(exc))
        return before
    wish = wish_for(
        node["metadata"].get("labels") or {},
        settings.labels,
        profile=settings.profile,
        layouts=settings.layouts,
        layout=settings.layout,
    )
    log.info("simulating", profile=wish.profile, mig_layout=str(wish.mig_layout or ""))
    made = furnish(settings.directory, wish, node=settings.node, hook=hook, majors=majors)
    return made.hardware


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


if __name__ == "__main__":
    main()
