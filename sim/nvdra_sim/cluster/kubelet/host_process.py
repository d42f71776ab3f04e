"""Containers as plain processes of this machine, for machines without namespaces.

Only programs of an image that says how to run them outside (`ImageContent.host_command`). Of the
CDI edits the environment counts; mounts become settings that say where things are.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nvdra_sim.cluster.kubelet.container import StartError
from nvdra_sim.cluster.kubelet.container_process import ContainerProcess
from nvdra_sim.cluster.parent_death import die_with_this_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nvdra_sim.cluster.kubelet.cdi_spec import Mount
    from nvdra_sim.cluster.kubelet.container import ContainerSpec, RunningContainer

_SHARED: Final = "/imexd"
_HOSTS: Final = "127.0.0.1\tlocalhost\n"


async def start_on_host(spec: ContainerSpec, command: Sequence[str]) -> RunningContainer:
    """Run `command` in place of the container. Raises `StartError`."""
    try:
        environ = await asyncio.to_thread(_prepare, spec)
        with spec.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                *spec.args[1:],
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_this_process(),
            )
    except OSError as exc:
        raise StartError(f"starting {spec.args[0]} of container {spec.name}: {exc}") from exc
    return ContainerProcess(process, spec.bundle)


def _prepare(spec: ContainerSpec) -> dict[str, str]:
    """Lay out what is the container's own; its environment."""
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    spec.bundle.mkdir(parents=True, exist_ok=True)
    hosts = spec.bundle / "hosts"
    hosts.write_text(_HOSTS)
    environ = {**spec.env, **dict(entry.split("=", 1) for entry in spec.edits.env)}
    programs = {str(Path(mount.host_path).parent) for mount in spec.edits.mounts if _is_bin(mount)}
    environ["PATH"] = os.pathsep.join([*sorted(programs), environ.get("PATH", os.defpath)])
    environ["HOSTS_FILE"] = str(hosts)
    environ["STACKS_FILE"] = str(spec.bundle / "stacks")
    for mount in spec.edits.mounts:
        if mount.container_path == _SHARED:
            environ["IMEX_DIRECTORY"] = mount.host_path
    return environ


def _is_bin(mount: Mount) -> bool:
    return mount.container_path.startswith("/usr/bin/")
