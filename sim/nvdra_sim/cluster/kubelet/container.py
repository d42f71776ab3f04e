"""One container: a root of its own, what the CDI edits put into it, and one command.

The runtime is told everything in a `ContainerSpec`; it knows neither Pods nor claims. A started
container is a process whose log is a plain file; when it is stopped nothing of it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from nvdra_sim.cluster.kubelet import launch
from nvdra_sim.cluster.kubelet.cdi_spec import ContainerEdits, DeviceNode, Hook, Mount
from nvdra_sim.cluster.kubelet.container_process import ContainerProcess, remove_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nvdra_sim.cluster.kubelet.images import Image

# Imported rather than run as a script: Python then finds it compiled.
_LAUNCHER = (
    sys.executable, "-I", "-S", "-c",
    "import sys; sys.path.append(sys.argv.pop(1)); import launch; sys.exit(launch.main(sys.argv))",
    str(Path(launch.__file__).parent),
)  # fmt: skip


class StartError(Exception):
    """The container's command was never started; the message says at which step and why."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What to run. `bundle` is a directory of this container alone and must not exist yet."""

    name: str
    image: Image
    bundle: Path
    log: Path
    args: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    hostname: str = ""
    volumes: tuple[Mount, ...] = ()
    edits: ContainerEdits = field(default_factory=ContainerEdits)


class RunningContainer(Protocol):
    """A container whose command runs, or has run."""

    async def wait(self) -> int:
        """The exit code, 128 + signal where a signal ended it. May be called more than once."""
        ...

    def terminate(self) -> None:
        """SIGTERM to process 1 of the container, which may ignore it."""
        ...

    def kill(self) -> None:
        """SIGKILL to everything in the container."""
        ...


class ContainerRuntime(Protocol):
    async def start(self, spec: ContainerSpec) -> RunningContainer:
        """Returns when the command runs. Raises `StartError`."""
        ...


class NamespaceRuntime:
    """Containers as processes in namespaces of their own, started through `launch.py`."""

    async def start(self, spec: ContainerSpec) -> RunningContainer:
        try:
            await asyncio.to_thread(_write_bundle, spec)
            return await _spawn(spec)
        except OSError as exc:
            await asyncio.to_thread(remove_bundle, spec.bundle)
            raise StartError(f"launching container {spec.name}: {exc}") from exc
        except BaseException:
            await asyncio.shield(asyncio.to_thread(remove_bundle, spec.bundle))
            raise


@functools.cache
def namespaces_refused() -> str:
    """Why containers in namespaces cannot run on this machine; empty when they can. Blocks."""
    answer = subprocess.run(
        [*_LAUNCHER, "probe"], capture_output=True, text=True, check=False, timeout=30, env={}
    )
    if answer.returncode == 0:
        return ""
    return answer.stderr.strip() or f"the probe ended with {answer.returncode}"


def namespaces_available() -> bool:
    return not namespaces_refused()


async def _spawn(spec: ContainerSpec) -> RunningContainer:
    status_read, status_write = os.pipe()
    log = await asyncio.to_thread(_open_log, spec.log)
    try:
        # On this thread on purpose: the launcher dies with the thread that started it.
        process = await asyncio.create_subprocess_exec(
            *_LAUNCHER, "run", str(spec.bundle), str(os.getpid()), str(status_write),
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=(status_write,), env={},
        )  # fmt: skip
    except BaseException:
        os.close(status_read)
        raise
    finally:
        os.close(status_write)
        os.close(log)
    try:
        problem = await _read_to_end(status_read)
    except asyncio.CancelledError:
        await asyncio.shield(_abandon(process))
        raise
    if problem:
        await process.wait()
        raise StartError(problem)
    # The supervisor outlives this kill: nothing of the container runs any more when it has ended.
    return ContainerProcess(process, spec.bundle, kill_signal=launch.KILL_CONTAINER)


async def _abandon(process: asyncio.subprocess.Process) -> None:
    # Before its handlers are installed SIGUSR1 ends the launcher itself, and its child with it.
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def _read_to_end(descriptor: int) -> str:
    """The launcher's complaint: its end of the pipe closes when the command takes over."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        return (await reader.read()).decode(errors="replace")
    finally:
        transport.close()


def _open_log(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _write_bundle(spec: ContainerSpec) -> None:
    try:
        spec.bundle.mkdir(parents=True)
        spec.image.unpack(spec.bundle / "rootfs")
        if spec.hostname:
            (spec.bundle / "rootfs/etc/hostname").write_text(f"{spec.hostname}\n")
        config = json.dumps(runtime_config(spec), ensure_ascii=False)
        (spec.bundle / "config.json").write_text(config, encoding="utf-8")
    except OSError as exc:
        raise StartError(f"root file system of container {spec.name}: {exc}") from exc


def runtime_config(spec: ContainerSpec) -> dict[str, Any]:
    """The container as an OCI runtime configuration. Raises `StartError`."""
    env = {**spec.env, **dict(entry.split("=", 1) for entry in spec.edits.env)}
    hooks: dict[str, list[dict[str, Any]]] = {}
    for hook in spec.edits.hooks:
        hooks.setdefault(hook.hook_name, []).append(_oci_hook(hook))
    return {
        "ociVersion": "1.2.0",
        "hostname": spec.hostname,
        "root": {"path": str(spec.bundle / "rootfs")},
        "process": {
            "args": list(spec.args),
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": spec.cwd,
        },
        "mounts": [_oci_mount(mount) for mount in (*spec.volumes, *spec.edits.mounts)],
        "hooks": hooks,
        "linux": {"devices": [_oci_device(node) for node in spec.edits.device_nodes]},
    }


def _oci_hook(hook: Hook) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": hook.path, "args": hook.args, "env": hook.env}
    return entry | ({"timeout": hook.timeout} if hook.timeout else {})


def _oci_mount(mount: Mount) -> dict[str, Any]:
    return {
        "source": mount.host_path,
        "destination": mount.container_path,
        "type": mount.type or "bind",
        "options": mount.options,
    }


def _oci_device(node: DeviceNode) -> dict[str, Any]:
    """A node whose type and number are not both given is looked up on the host, as runtimes do."""
    host_path = Path(node.host_path or node.path)
    numbered = node.type and (node.major or node.type == "p")
    if not numbered and not os.path.lexists(host_path):
        raise StartError(f"CDI device node {node.path}: {host_path} is not there")
    return {**msgspec.to_builtins(node), "hostPath": str(host_path)}
